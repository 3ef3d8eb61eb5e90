/** Devices over an array that record their calls: one plain, one that is memory. */
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice, WriteOptions, WriteZeroesOptions } from "../../src/device.ts";

/** The record: `write 512+1024`, `trim 0+512 fua`, `writeZeroes 0+512 hole`, `flush`. */
export interface Recording extends BlockDevice {
  readonly calls: string[];
  /** What the next call of a method does instead of its work, by method. */
  readonly faults: Map<string, () => void>;
}

export type Method = "read" | "write" | "flush" | "trim" | "writeZeroes";

/** What a call waits for before it does its work: nothing, or a promise. */
export type Hold = (offset: number, length: number, method: Method) => Promise<void> | undefined;

/** A plain device over an array. Its calls return at once, unless they are held. */
export class Shadow implements Recording {
  readonly bytes: Uint8Array;
  readonly calls: string[] = [];
  readonly faults = new Map<string, () => void>();
  /** The number of calls held now, and its maximum so far. */
  inFlight = 0;
  inFlightMax = 0;
  closes = 0;
  hold: Hold = () => undefined;

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    const work = (): void => target.set(this.bytes.subarray(offset, offset + target.length));
    return this.#call("read", offset, target.length, range(offset, target.length), work);
  }

  write(source: Uint8Array, offset: number, options?: WriteOptions): void | Promise<void> {
    const work = (): void => this.bytes.set(source, offset);
    return this.#call("write", offset, source.length, range(offset, source.length) + fuaMark(options), work);
  }

  flush(): void | Promise<void> {
    return this.#call("flush", 0, 0, "", () => undefined);
  }

  trim(offset: number, length: number, options?: WriteOptions): void | Promise<void> {
    const work = (): unknown => this.bytes.fill(0, offset, offset + length);
    return this.#call("trim", offset, length, range(offset, length) + fuaMark(options), work);
  }

  writeZeroes(offset: number, length: number, options?: WriteZeroesOptions): void | Promise<void> {
    const work = (): unknown => this.bytes.fill(0, offset, offset + length);
    const details = range(offset, length) + fuaMark(options) + holeMark(options);
    return this.#call("writeZeroes", offset, length, details, work);
  }

  close(): void | Promise<void> {
    this.closes += 1;
  }

  get closed(): boolean {
    return this.closes > 0;
  }

  /** The promise that the call waits for, if any. */
  protected gate(offset: number, length: number, method: Method): Promise<void> | undefined {
    return this.hold(offset, length, method);
  }

  #call(
    method: Method,
    offset: number,
    length: number,
    details: string,
    work: () => unknown,
  ): void | Promise<void> {
    return record(this, method, details, () => {
      const gate = this.gate(offset, length, method);
      return gate === undefined ? void work() : this.#held(gate, work);
    });
  }

  async #held(gate: Promise<void>, work: () => unknown): Promise<void> {
    this.inFlight += 1;
    this.inFlightMax = Math.max(this.inFlightMax, this.inFlight);
    try {
      await gate;
    } finally {
      this.inFlight -= 1;
    }
    work();
  }
}

/** A device whose writes, trims and zeroes honour FUA themselves. */
export class NativeShadow extends Shadow {
  readonly fua = "native" as const;
}

/** The RAM disk with a flush, so that it can have FUA. */
export class MemoryShadow extends Ramdisk implements Recording {
  readonly calls: string[] = [];
  readonly faults = new Map<string, () => void>();

  override read(target: Uint8Array, offset: number): void {
    return record(this, "read", range(offset, target.length), () => super.read(target, offset));
  }

  override write(source: Uint8Array, offset: number): void {
    return record(this, "write", range(offset, source.length), () => super.write(source, offset));
  }

  flush(): void {
    return record(this, "flush", "", () => undefined);
  }

  override trim(offset: number, length: number, options?: WriteOptions): void {
    const details = range(offset, length) + fuaMark(options);
    return record(this, "trim", details, () => super.trim(offset, length));
  }

  override writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    const details = range(offset, length) + fuaMark(options) + holeMark(options);
    return record(this, "writeZeroes", details, () => super.writeZeroes(offset, length, options));
  }
}

/** How to make each kind. */
export const KINDS: readonly (readonly [string, (size: number) => Recording])[] = [
  ["plain", (size) => new Shadow(size)],
  ["memory", (size) => new MemoryShadow(size)],
];

/** The device's contents, by its own `read`, but not recorded. */
export function contents(device: Recording): Uint8Array {
  const bytes = new Uint8Array(device.size);
  void device.read(bytes, 0);
  device.calls.pop();
  return bytes;
}

/** Writes bytes to the device directly, not through the connection and not recorded. */
export function fill(device: Recording, bytes: Uint8Array): void {
  void device.write?.(bytes, 0, { fua: false });
  device.calls.pop();
}

/** Returns the result of the work, or that of the fault instead. */
function record<Result>(
  device: Recording,
  method: Method,
  details: string,
  work: () => Result,
): Result | void {
  device.calls.push(`${method} ${details}`.trimEnd());
  const fault = device.faults.get(method);
  device.faults.delete(method);
  return fault === undefined ? work() : fault();
}

function range(offset: number, length: number): string {
  return `${offset}+${length}`;
}

function fuaMark(options: WriteOptions | undefined): string {
  return options?.fua === true ? " fua" : "";
}

function holeMark(options: WriteZeroesOptions | undefined): string {
  return options?.mayTrim === true ? " hole" : "";
}
