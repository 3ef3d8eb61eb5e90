/** Devices that return promises. */
import type { BlockDevice } from "../../src/device.ts";

/** What a request waits for before it is done: nothing, or a promise. */
export type Hold = (offset: number, length: number) => Promise<void> | undefined;

/** An array whose reads and writes are asynchronous, each held up as the caller wants. */
export class AsyncStore implements BlockDevice {
  readonly bytes: Uint8Array;
  /** Requests that have begun and are not done, now and at most. */
  inFlight = 0;
  inFlightMax = 0;
  closed = false;
  hold: Hold = () => undefined;

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    await this.#held(offset, target.length);
    target.set(this.bytes.subarray(offset, offset + target.length));
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    await this.#held(offset, source.length);
    this.bytes.set(source, offset);
  }

  async flush(): Promise<void> {
    await this.#held(0, 0);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#held(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#held(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  close(): void {
    this.closed = true;
  }

  async #held(offset: number, length: number): Promise<void> {
    this.inFlight += 1;
    this.inFlightMax = Math.max(this.inFlightMax, this.inFlight);
    try {
      await this.hold(offset, length);
    } finally {
      this.inFlight -= 1;
    }
  }
}
