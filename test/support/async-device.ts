/** Devices that return promises, over arrays: what they do takes turns of the event loop. */
import type { BlockDevice } from "../../src/device.ts";

/** Right in all it does; reads and writes what it holds only after a while that differs from call to call. */
export class AsyncDisk implements BlockDevice {
  readonly bytes: Uint8Array;
  /** The most requests that it had at once. */
  mostInFlight = 0;
  closes = 0;
  #inFlight = 0;
  #calls = 0;

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  read(target: Uint8Array, offset: number): Promise<void> {
    return this.later(() => target.set(this.bytes.subarray(offset, offset + target.length)));
  }

  write(source: Uint8Array, offset: number): Promise<void> {
    return this.later(() => this.bytes.set(source, offset));
  }

  flush(): Promise<void> {
    return this.later(() => undefined);
  }

  trim(offset: number, length: number): Promise<void> {
    return this.writeZeroes(offset, length);
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.later(() => this.bytes.fill(0, offset, offset + length));
  }

  async close(): Promise<void> {
    this.closes += 1;
  }

  /** Does `work` after one to four turns. */
  protected async later(work: () => unknown): Promise<void> {
    this.#inFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.#inFlight);
    this.#calls += 1;
    await turns(1 + ((this.#calls * 7) % 4));
    this.#inFlight -= 1;
    work();
  }
}

/** So many turns of the event loop. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
