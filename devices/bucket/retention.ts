/** How long states of a disk are kept: decides which checkpoint is the oldest that must stay. */
import type { ObjectStore } from "./parts.ts";
import { readRoot, type RootRecord } from "./records.ts";

export class Retention {
  #oldest: number;
  /** When checkpoints were made, by their numbers. */
  readonly #times = new Map<number, number>();

  /**
   * @param keepMs how long every state is kept; 0: only the newest.
   * @param oldest states are kept from this checkpoint on; 0: from the beginning.
   */
  constructor(
    readonly store: ObjectStore,
    readonly keepMs: number,
    oldest: number,
  ) {
    this.#oldest = oldest;
  }

  /** States before this checkpoint are no longer kept. */
  raise(oldest: number): void {
    this.#oldest = Math.max(this.#oldest, oldest);
  }

  /**
   * The oldest checkpoint to keep when the one after `newest` is made. From it on, every state younger than `keepMs`
   * can be opened.
   */
  async choose(newest: number): Promise<number> {
    if (this.keepMs === 0) return newest + 1;
    const latest = Date.now() - this.keepMs;
    // Binary search: the result is at `low` or above, and below `high`.
    let [low, high] = [this.#oldest, newest + 1];
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((await this.#timeOf(middle)) <= latest) low = middle;
      else high = middle;
    }
    for (const number of this.#times.keys()) if (number < low) this.#times.delete(number);
    this.raise(low);
    return this.#oldest;
  }

  /** The root of the oldest one; undefined: everything is kept from the beginning. */
  async base(root: RootRecord, number: number): Promise<RootRecord | undefined> {
    return root.oldest === number ? root : readRoot(this.store, root.oldest);
  }

  async #timeOf(number: number): Promise<number> {
    const time = this.#times.get(number) ?? (await readRoot(this.store, number))?.time ?? Infinity;
    this.#times.set(number, time);
    return time;
  }
}
