/**
 * Leaves of the block map: pages of words, carved out of slabs so that a full disk does not need a quarter of a million
 * arrays. A slab is freed when none of its leaves is in use.
 */

/** Words in a leaf. */
export const LEAF_WORDS = 1024;
/** Leaves in a slab: 1 MiB. */
const SLAB_LEAVES = 256;

class Slab {
  readonly words = new Uint32Array(SLAB_LEAVES * LEAF_WORDS);
  /** How many words of each leaf are not zero. */
  readonly used = new Uint16Array(SLAB_LEAVES);
  /** A stack of free leaves. */
  readonly #free = Uint16Array.from({ length: SLAB_LEAVES }, (_, index) => SLAB_LEAVES - 1 - index);
  free = SLAB_LEAVES;

  static readonly BYTES = SLAB_LEAVES * (LEAF_WORDS * 4 + 2 + 2);

  take(): number {
    this.free -= 1;
    return this.#free[this.free] ?? 0;
  }

  give(leaf: number): void {
    this.#free[this.free] = leaf;
    this.free += 1;
  }
}

/** A leaf is a number. Its words begin at `base` in the array `words`. */
export class LeafPool {
  readonly #slabs: (Slab | undefined)[] = [];
  /** Slabs with a free leaf. */
  readonly #open: number[] = [];
  /** Numbers of freed slabs. */
  readonly #gaps: number[] = [];

  /** The size of all slabs, in bytes. */
  get memoryBytes(): number {
    return (this.#slabs.length - this.#gaps.length) * Slab.BYTES;
  }

  /** A leaf of zeroes. */
  take(): number {
    const number = this.#open.at(-1) ?? this.#addSlab();
    const slab = this.#slab(number);
    const leaf = slab.take();
    if (slab.free === 0) this.#open.pop();
    return number * SLAB_LEAVES + leaf;
  }

  words(leaf: number): Uint32Array {
    return this.#slab(Math.floor(leaf / SLAB_LEAVES)).words;
  }

  base(leaf: number): number {
    return (leaf % SLAB_LEAVES) * LEAF_WORDS;
  }

  /**
   * Adds `change` to the count of words that are not zero. Returns whether all are zero now: the leaf is then free, and
   * must not be used any more.
   */
  account(leaf: number, change: number): boolean {
    const number = Math.floor(leaf / SLAB_LEAVES);
    const slab = this.#slab(number);
    const used = (slab.used[leaf % SLAB_LEAVES] ?? 0) + change;
    slab.used[leaf % SLAB_LEAVES] = used;
    if (used > 0) return false;
    slab.give(leaf % SLAB_LEAVES);
    if (slab.free === 1) this.#open.push(number);
    // Keep one empty slab: a disk near the limit would otherwise allocate and free it again and again.
    if (slab.free === SLAB_LEAVES && this.#open.length > 1) this.#dropSlab(number);
    return true;
  }

  #slab(number: number): Slab {
    const slab = this.#slabs[number];
    if (slab === undefined) throw new Error(`slab ${number} has no memory`);
    return slab;
  }

  #addSlab(): number {
    const number = this.#gaps.pop() ?? this.#slabs.length;
    this.#slabs[number] = new Slab();
    this.#open.push(number);
    return number;
  }

  #dropSlab(number: number): void {
    this.#slabs[number] = undefined;
    this.#gaps.push(number);
    this.#open.splice(this.#open.indexOf(number), 1);
  }
}
