/** A device that does some of its work at once and puts the rest off, as one whose disk is sometimes needed. */
import { writeSync } from "node:fs";
import type { BlockDevice, WriteOptions, WriteZeroesOptions } from "../../src/device.ts";
import { Waker } from "../../src/libc/waker.ts";
import type { Random } from "./random.ts";
import { type Recording, Shadow } from "./shadow.ts";

/** What has been put off, and the promise that is waited for. */
interface Work {
  readonly perform: () => void;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * A third of the calls is done at once; the others are done in random order, a few whenever the kernel wakes the
 * thread. What a call does it does when its promise settles, so that an order that is wrong shows in the data.
 */
export class RestlessDevice implements BlockDevice, Recording {
  /** The most calls that it had at once. */
  mostInFlight = 0;
  readonly #inner: Shadow;
  readonly #random: Random;
  readonly #waker = new Waker(() => this.#wake());
  readonly #work: Work[] = [];
  #isRestless = true;

  constructor(size: number, random: Random) {
    this.#inner = new Shadow(size);
    this.#random = random;
  }

  get size(): number {
    return this.#inner.size;
  }

  get calls(): string[] {
    return this.#inner.calls;
  }

  get faults(): Map<string, () => void> {
    return this.#inner.faults;
  }

  /** Puts nothing off from now on. */
  settleDown(): void {
    this.#isRestless = false;
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    return this.#later(() => this.#inner.read(target, offset));
  }

  write(source: Uint8Array, offset: number, options: WriteOptions): void | Promise<void> {
    return this.#later(() => this.#inner.write(source, offset, options));
  }

  flush(): void | Promise<void> {
    return this.#later(() => this.#inner.flush());
  }

  trim(offset: number, length: number, options: WriteOptions): void | Promise<void> {
    return this.#later(() => this.#inner.trim(offset, length, options));
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void | Promise<void> {
    return this.#later(() => this.#inner.writeZeroes(offset, length, options));
  }

  close(): Promise<void> {
    return this.#waker.close();
  }

  #later(perform: () => void): void | Promise<void> {
    if (!this.#isRestless || this.#random.oneIn(3)) return perform();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#work.push({ perform, resolve, reject });
    this.mostInFlight = Math.max(this.mostInFlight, this.#work.length);
    this.#signal();
    return promise;
  }

  #wake(): void {
    const count = 1 + this.#random.below(this.#work.length);
    for (let done = 0; done < count && this.#work.length > 0; done += 1) {
      const [work] = this.#work.splice(this.#random.below(this.#work.length), 1);
      if (work !== undefined) settle(work);
    }
    if (this.#work.length > 0) this.#signal();
  }

  /** Adds 1 to the eventfd, as the kernel does. */
  #signal(): void {
    writeSync(this.#waker.fd, new BigUint64Array([1n]));
  }
}

function settle({ perform, resolve, reject }: Work): void {
  try {
    perform();
    resolve();
  } catch (error) {
    reject(error);
  }
}
