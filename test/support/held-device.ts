/** A device that keeps every call until it is let go. */
import type { BlockDevice } from "../../src/device.ts";
import { longPattern } from "./random.ts";

interface Held {
  /** `write 4096`, `flush`. */
  readonly name: string;
  readonly work: () => unknown;
  readonly promise: PromiseWithResolvers<void>;
}

export class HeldDevice implements BlockDevice {
  readonly bytes: Uint8Array;
  readonly #held: Held[] = [];
  #isHolding = true;

  /** @param promptFrom reads from this offset on are answered at once, in bytes. */
  constructor(
    readonly size: number,
    readonly promptFrom = Number.POSITIVE_INFINITY,
  ) {
    this.bytes = longPattern(size);
  }

  /** What it was asked for and has not done. */
  get names(): string[] {
    return this.#held.map(({ name }) => name);
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    const work = (): void => target.set(this.bytes.subarray(offset, offset + target.length));
    return offset >= this.promptFrom ? work() : this.#hold(`read ${offset}`, work);
  }

  write(source: Uint8Array, offset: number): void | Promise<void> {
    return this.#hold(`write ${offset}`, () => this.bytes.set(source, offset));
  }

  flush(): void | Promise<void> {
    return this.#hold("flush", () => undefined);
  }

  trim(offset: number, length: number): void | Promise<void> {
    return this.#hold(`trim ${offset}`, () => this.bytes.fill(0, offset, offset + length));
  }

  writeZeroes(offset: number, length: number): void | Promise<void> {
    return this.#hold(`zeroes ${offset}`, () => this.bytes.fill(0, offset, offset + length));
  }

  /** Does the call of this name that it has had for the longest. */
  letGo(name: string): void {
    const { work, promise } = this.#take(name);
    work();
    promise.resolve();
  }

  fail(name: string, reason: unknown): void {
    this.#take(name).promise.reject(reason);
  }

  /** Does what it has, the last first. */
  letAllGo(): void {
    for (const name of this.names.toReversed()) this.letGo(name);
  }

  /** Does what it has, and all that comes, at once. */
  settleDown(): void {
    this.#isHolding = false;
    this.letAllGo();
  }

  #take(name: string): Held {
    const [held] = this.#held.splice(this.names.indexOf(name), 1);
    if (held?.name !== name)
      throw new Error(`the device does not have ${name}, but ${this.names.join(", ")}`);
    return held;
  }

  #hold(name: string, work: () => unknown): void | Promise<void> {
    if (!this.#isHolding) return void work();
    const promise = Promise.withResolvers<void>();
    this.#held.push({ name, work, promise });
    return promise.promise;
  }
}
