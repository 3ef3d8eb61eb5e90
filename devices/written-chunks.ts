/**
 * Which parts of a RAM disk have been written, one byte for each chunk. A trim can then skip chunks that have no memory
 * to give back, and a question about holes need not look at the memory.
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

/** How many bytes a native search goes through at a time: it cannot be given an end. */
const SEGMENT_CHUNKS = 4096;
/** Fewer chunks are looked at one by one: the call of a native search takes longer. */
const FEW_CHUNKS = 16;

export interface ChunkLayout {
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes of a chunk, a power of two. */
  readonly chunkBytes: number;
  /** How far the disk's first byte lies within its chunk. */
  readonly lead: number;
}

/** Bytes of the states of all chunks. */
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
   * @param address of the states that another object of the same layout has made and goes on owning.
   * @param file the memory that they are to lie in, or lie in already: see libc.Memory.
   * @throws ErrnoError ENOMEM
   */
  constructor({ size, chunkBytes, lead }: ChunkLayout, address?: number, file?: number) {
    this.#size = size;
    this.chunkBytes = chunkBytes;
    this.#lead = lead;
    this.#memory = new libc.Memory(statesBytes({ size, chunkBytes, lead }), address, file);
    // A state here and there must not take a huge page. Kernels without them have nothing to be told.
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

  /** To be called before a write, and after one that took its time. */
  noteWrite(offset: number, end: number): void {
    const states = this.#states;
    const last = this.#chunkOf(end - 1);
    for (let chunk = this.#chunkOf(offset); chunk <= last; chunk += 1)
      if (states[chunk] !== WRITTEN) states[chunk] = WRITTEN;
  }

  /** To be called before memory is given back: notes the chunks of which nothing is left. */
  noteGivenBack(offset: number, end: number): void {
    const first = offset === 0 ? 0 : this.#chunkOf(offset + this.chunkBytes - 1);
    const stop = end === this.#size ? this.#states.length : this.#chunkOf(end);
    if (first < stop) this.#states.fill(GIVEN_BACK, first, stop);
  }

  /** The first byte of the range that has been written since its chunk was given back; `end` if there is none. */
  firstWritten(offset: number, end: number): number {
    return this.#search(offset, end, WRITTEN, WRITTEN);
  }

  /** The first byte that has not, or `end`. */
  firstNotWritten(offset: number, end: number): number {
    return this.#search(offset, end, NEVER_WRITTEN, GIVEN_BACK);
  }

  /** The first byte of the range whose chunk has ever been written, or `end`. */
  firstTouched(offset: number, end: number): number {
    return this.#search(offset, end, WRITTEN, GIVEN_BACK);
  }

  /** The first byte whose chunk has not, or `end`. */
  firstUntouched(offset: number, end: number): number {
    return this.#search(offset, end, NEVER_WRITTEN, NEVER_WRITTEN);
  }

  close(): void {
    this.#memory.close();
  }

  #chunkOf(offset: number): number {
    return Math.floor((offset + this.#lead) / this.chunkBytes);
  }

  /** Where the first part of the range begins whose chunk is in one of two states, or `end`. */
  #search(offset: number, end: number, state: number, other: number): number {
    const first = this.#chunkOf(offset);
    const stop = this.#chunkOf(end - 1) + 1;
    let found = this.#find(state, first, stop);
    if (other !== state) found = this.#find(other, first, found);
    return found === stop ? end : Math.max(offset, found * this.chunkBytes - this.#lead);
  }

  /** The first chunk of that state from `first` on and before `stop`, else `stop`. */
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
