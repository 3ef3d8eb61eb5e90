/** A disk with a write cache: unflushed data is lost when its machine loses power. */
import type { BlockDevice, WriteOptions, WriteZeroesOptions } from "../../src/device.ts";
import { ErrnoError } from "../../src/errors.ts";

export class VolatileStore {
  readonly stable: Uint8Array;
  readonly current: Uint8Array;
  /** How many of the next flushes fail. */
  failingFlushes = 0;
  flushes = 0;

  constructor(readonly size: number) {
    this.stable = new Uint8Array(size);
    this.current = new Uint8Array(size);
  }

  /** Starts the machine: the disk works until the next power failure. */
  powerOn(): VolatileDisk {
    this.current.set(this.stable);
    return new VolatileDisk(this);
  }
}

class VolatileDisk implements BlockDevice {
  readonly fua = "native" as const;
  readonly size: number;
  isOff = false;
  #requests = 0;
  readonly #flushing = new Set<Uint8Array>();
  readonly #store: VolatileStore;

  constructor(store: VolatileStore) {
    this.#store = store;
    this.size = store.size;
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    await this.#moment();
    target.set(this.#store.current.subarray(offset, offset + target.length));
  }

  async write(source: Uint8Array, offset: number, { fua }: WriteOptions): Promise<void> {
    await this.#moment();
    this.#store.current.set(source, offset);
    if (!fua) return;
    // A flush in progress must not undo it.
    for (const bytes of [this.#store.stable, ...this.#flushing]) bytes.set(source, offset);
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    await this.write(new Uint8Array(length), offset, options);
  }

  async trim(offset: number, length: number, options: WriteOptions): Promise<void> {
    await this.write(new Uint8Array(length), offset, options);
  }

  async flush(): Promise<void> {
    // A flush promises nothing about writes that begin during it.
    const now = this.#store.current.slice();
    this.#flushing.add(now);
    await this.#moment().finally(() => this.#flushing.delete(now));
    this.#store.flushes += 1;
    if (this.#store.failingFlushes > 0) {
      this.#store.failingFlushes -= 1;
      throw new ErrnoError("EIO");
    }
    this.#store.stable.set(now);
  }

  /** Waits a little, so that requests overtake each other. One that a power failure interrupts does nothing. */
  async #moment(): Promise<void> {
    this.#requests += 1;
    await Bun.sleep(this.#requests % 3);
    if (this.isOff) throw new ErrnoError("ESHUTDOWN");
  }
}

export type { VolatileDisk };
