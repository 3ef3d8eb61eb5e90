/**
 * Which parts of a RAM disk have been written, one byte for each chunk. A trim can then skip chunks that have no memory
 * to free, and a query for holes need not look at the memory.
 *
 * A chunk starts as "never written". A write marks it "written" before its bytes arrive, and a trim of the whole chunk
 * marks it "given back" before the memory goes. Threads share these bytes, and each byte is stored atomically: a write
 * that begins after a trim is never lost. A write already in flight may still arrive in a chunk that counts as given
 * back; it marks the chunk "written" again once it has arrived. Until then only a trim may skip that chunk, and a trim
 * promises nothing about later reads. Zeroes and holes rely on "never written" alone, a state that no chunk returns to.
 */
import { libc } from "tsbuse";

const NEVER_WRITTEN = 0;
const WRITTEN = 1;
const GIVEN_BACK = 2;

/** How many bytes a native search covers at a time: it takes no end. */
const SEGMENT_CHUNKS = 4096;
/** Up to this many chunks a loop is faster than the call of a native search. */
const FEW_CHUNKS = 16;

export interface ChunkLayout {
  /** Bytes in the disk. */
  readonly size: number;
  /** Bytes in a chunk, a power of two. */
  readonly chunkBytes: number;
  /** How far the disk's first byte lies within its chunk. */
  readonly lead: number;
}

/** The size of the states of all chunks, in bytes. */
export function statesBytes({ size, chunkBytes, lead }: ChunkLayout): number {
  return Math.ceil((lead + size) / chunkBytes);
}

/** Ranges are from `offset` up to, but without, `end`: bytes within the disk. Nothing is allocated for a range. */
export class WrittenChunks {
  readonly #memory: libc.Memory;
  readonly #states: Uint8Array;
  readonly #segments: readonly Uint8Array[];
  readonly #size: number;
  readonly chunkBytes: number;
  readonly #lead: number;

  /**
   * @param address of the states that another object of the same layout has made and owns.
   * @param file the memory for the states, which may contain them already: see libc.Memory.
   * @throws ErrnoError ENOMEM
   */
  constructor({ size, chunkBytes, lead }: ChunkLayout, address?: number, file?: number) {
    this.#size = size;
    this.chunkBytes = chunkBytes;
    this.#lead = lead;
    this.#memory = new libc.Memory(statesBytes({ size, chunkBytes, lead }), address, file);
    // A few states must not take a huge page. Kernels without huge pages refuse this, which does no harm.
    this.#memory.preferHugePages(false);
    const states = this.#memory.bytes();
    this.#states = states;
    this.#segments = Array.from({ length: Math.ceil(states.length / SEGMENT_CHUNKS) }, (_, index) =>
      states.subarray(index * SEGMENT_CHUNKS, (index + 1) * SEGMENT_CHUNKS),
    );
  }

  /** Where the states are, for other threads. */
  get address(): number {
    return this.#memory.address;
  }

  /** Call before a write, and after one that took its time. */
  noteWrite(offset: number, end: number): void {
    const states = this.#states;
    const last = this.#chunkOf(end - 1);
    for (let chunk = this.#chunkOf(offset); chunk <= last; chunk += 1)
      if (states[chunk] !== WRITTEN) states[chunk] = WRITTEN;
  }

  /** Call before memory is freed: marks the chunks of which nothing remains. */
  noteGivenBack(offset: number, end: number): void {
    const first = offset === 0 ? 0 : this.#chunkOf(offset + this.chunkBytes - 1);
    const stop = end === this.#size ? this.#states.length : this.#chunkOf(end);
    if (first < stop) this.#states.fill(GIVEN_BACK, first, stop);
  }

  /** The first byte of the range that was written since its chunk was given back, or `end`. */
  firstWritten(offset: number, end: number): number {
    return this.#search(offset, end, WRITTEN, WRITTEN);
  }

  /** The first byte that was not, or `end`. */
  firstNotWritten(offset: number, end: number): number {
    return this.#search(offset, end, NEVER_WRITTEN, GIVEN_BACK);
  }

  /** The first byte of the range whose chunk was ever written, or `end`. */
  firstTouched(offset: number, end: number): number {
    return this.#search(offset, end, WRITTEN, GIVEN_BACK);
  }

  /** The first byte whose chunk was not, or `end`. */
  firstUntouched(offset: number, end: number): number {
    return this.#search(offset, end, NEVER_WRITTEN, NEVER_WRITTEN);
  }

  close(): void {
    this.#memory.close();
  }

  #chunkOf(offset: number): number {
    return Math.floor((offset + this.#lead) / this.chunkBytes);
  }

  /** The start of the first part of the range whose chunk is in one of two states, or `end`. */
  #search(offset: number, end: number, state: number, other: number): number {
    const first = this.#chunkOf(offset);
    const stop = this.#chunkOf(end - 1) + 1;
    let found = this.#find(state, first, stop);
    if (other !== state) found = this.#find(other, first, found);
    return found === stop ? end : Math.max(offset, found * this.chunkBytes - this.#lead);
  }

  /** The first chunk in that state from `first` on and before `stop`, else `stop`. */
  #find(state: number, first: number, stop: number): number {
    let chunk = first;
    if (stop - first <= FEW_CHUNKS) {
      while (chunk < stop && this.#states[chunk] !== state) chunk += 1;
      return chunk;
    }
    while (chunk < stop) {
      const within = chunk % SEGMENT_CHUNKS;
      const found = this.#segments[(chunk - within) / SEGMENT_CHUNKS]?.indexOf(state, within) ?? -1;
      if (found >= 0) return Math.min(stop, chunk - within + found);
      chunk += SEGMENT_CHUNKS - within;
    }
    return stop;
  }
}
