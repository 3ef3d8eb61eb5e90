/** Devices that keep a record of what they are asked: one plain, one that is memory. */
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice, WriteOptions, WriteZeroesOptions } from "../../src/device.ts";

/** The record: `write 512+1024`, `trim 0+512 fua`, `writeZeroes 0+512 hole`, `flush`. */
export interface Recording extends BlockDevice {
  readonly calls: string[];
  /** What the next call of a method does in place of its work. */
  readonly faults: Map<string, () => void>;
}

export type Method = "read" | "write" | "flush" | "trim" | "writeZeroes";

/** A plain device over an array. */
export class Shadow implements Recording {
  readonly bytes: Uint8Array;
  readonly calls: string[] = [];
  readonly faults = new Map<string, () => void>();

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  read(target: Uint8Array, offset: number): void {
    const work = (): void => target.set(this.bytes.subarray(offset, offset + target.length));
    return record(this, "read", work, range(offset, target.length));
  }

  write(source: Uint8Array, offset: number, options: WriteOptions): void {
    const work = (): void => this.bytes.set(source, offset);
    return record(this, "write", work, range(offset, source.length) + fuaMark(options));
  }

  flush(): void {
    return record(this, "flush", () => undefined);
  }

  trim(offset: number, length: number, options: WriteOptions): void {
    const work = (): unknown => this.bytes.fill(0, offset, offset + length);
    return record(this, "trim", work, range(offset, length) + fuaMark(options));
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    const work = (): unknown => this.bytes.fill(0, offset, offset + length);
    return record(this, "writeZeroes", work, range(offset, length) + fuaMark(options) + holeMark(options));
  }
}

/** A device whose writes, trims and zeroes honour FUA themselves. */
export class NativeShadow extends Shadow {
  readonly fua = "native" as const;
}

/** The RAM disk, with a flush so that it can have FUA. */
export class MemoryShadow extends Ramdisk implements Recording {
  readonly calls: string[] = [];
  readonly faults = new Map<string, () => void>();

  override read(target: Uint8Array, offset: number): void {
    return record(this, "read", () => super.read(target, offset), range(offset, target.length));
  }

  override write(source: Uint8Array, offset: number): void {
    return record(this, "write", () => super.write(source, offset), range(offset, source.length));
  }

  flush(): void {
    return record(this, "flush", () => undefined);
  }

  override trim(offset: number, length: number, options?: WriteOptions): void {
    const details = range(offset, length) + fuaMark(options);
    return record(this, "trim", () => super.trim(offset, length), details);
  }

  override writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    const details = range(offset, length) + fuaMark(options) + holeMark(options);
    return record(this, "writeZeroes", () => super.writeZeroes(offset, length, options), details);
  }
}

/** One of either kind. */
export const KINDS: readonly (readonly [string, (size: number) => Recording])[] = [
  ["plain", (size) => new Shadow(size)],
  ["memory", (size) => new MemoryShadow(size)],
];

/** All that the device holds, by its own read; leaves no trace in the record. */
export function contents(device: Recording): Uint8Array {
  const bytes = new Uint8Array(device.size);
  device.read(bytes, 0);
  device.calls.pop();
  return bytes;
}

/** Puts bytes on the device past the connection; leaves no trace in the record. */
export function fill(device: Recording, bytes: Uint8Array): void {
  device.write?.(bytes, 0, { fua: false });
  device.calls.pop();
}

function record(device: Recording, method: Method, work: () => unknown, details = ""): void {
  device.calls.push(`${method} ${details}`.trimEnd());
  const fault = device.faults.get(method);
  device.faults.delete(method);
  if (fault !== undefined) return fault();
  work();
}

function range(offset: number, length: number): string {
  return `${offset}+${length}`;
}

function fuaMark(options: WriteOptions | undefined): string {
  return options?.fua === true ? " fua" : "";
}

function holeMark(options: WriteZeroesOptions): string {
  return options.mayTrim ? " hole" : "";
}
