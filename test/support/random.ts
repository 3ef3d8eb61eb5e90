/** Random numbers that can be had again: every random test prints its seed, and TSBUSE_SEED sets it. */

/** The seed of this run. */
export function chooseSeed(test: string): number {
  const wanted = process.env["TSBUSE_SEED"];
  const seed = wanted === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(wanted);
  if (!Number.isSafeInteger(seed)) throw new Error(`TSBUSE_SEED=${wanted} is not a whole number`);
  console.log(`${test}: TSBUSE_SEED=${seed}`);
  return seed;
}

/** xorshift32 (Marsaglia, 2003). */
export class Random {
  #state: number;

  constructor(seed: number) {
    // Spreads small seeds over all bits; zero is the one state that has no successor.
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0 || 1;
  }

  /** A whole number from 0 to 2^32 - 1. */
  word(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.word() / 2 ** 32) * limit);
  }

  /** True in one of `count` cases. */
  oneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.word() >>> 24);
  }
}

/** Bytes that differ from their neighbours at every distance that an off-by-a-block mistake makes. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return new Random(seed).bytes(length);
}
