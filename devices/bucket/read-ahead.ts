/**
 * Which blocks will be read next. A bucket takes tens of milliseconds for an answer, whatever its length: who reads in
 * order must find the next blocks on their way. It knows several readers at once by where each will go on, whatever
 * order their requests come in, and fetches further ahead the longer one goes on.
 */

/** How far from where a reader will go on a block may lie: requests overtake each other. */
const SLACK_BLOCKS = 64;
/** What is fetched ahead of the second read of a reader; each later fetch is twice as long, up to a limit. */
const FIRST_BLOCKS = 64;
const READERS_MAX = 16;

export interface ReadAheadOptions {
  /** Blocks of the disk. */
  readonly blocks: number;
  /** Blocks that are fetched ahead of one reader, at most. 32 MiB bring 800 MB/s from a store that takes 40 ms. */
  readonly aheadMax: number;
}

export class ReadAhead {
  readonly #blocks: number;
  readonly #aheadMax: number;
  /** By reader: where it goes on; where the blocks end that are fetched; how far that is to be ahead; its last read. */
  readonly #next = new Float64Array(READERS_MAX).fill(Number.NEGATIVE_INFINITY);
  readonly #fetched = new Float64Array(READERS_MAX);
  readonly #window = new Uint32Array(READERS_MAX);
  readonly #lastRead = new Float64Array(READERS_MAX);
  #reads = 0;
  /** Of the last {@link note}: the first block that is to be fetched. */
  aheadBlock = 0;

  constructor({ blocks, aheadMax }: ReadAheadOptions) {
    this.#blocks = blocks;
    this.#aheadMax = aheadMax;
  }

  /**
   * To be told of every read. Returns how many blocks from {@link aheadBlock} on are to be fetched now, often 0. They
   * lie on the disk, behind those that are read. Nothing is allocated.
   */
  note(block: number, count: number): number {
    this.#reads += 1;
    const end = block + count;
    const reader = this.#readerAt(block);
    if (reader < 0) return this.#begin(end);
    this.#lastRead[reader] = this.#reads;
    if (end <= (this.#next[reader] ?? 0)) return 0;
    this.#next[reader] = end;
    return this.#advance(reader, end);
  }

  #readerAt(block: number): number {
    for (let reader = 0; reader < READERS_MAX; reader += 1) {
      const distance = block - (this.#next[reader] ?? 0);
      if (distance >= -SLACK_BLOCKS && distance <= SLACK_BLOCKS) return reader;
    }
    return -1;
  }

  /** A new reader, in place of that which has been quiet for longest. */
  #begin(end: number): number {
    let oldest = 0;
    for (let reader = 1; reader < READERS_MAX; reader += 1)
      if ((this.#lastRead[reader] ?? 0) < (this.#lastRead[oldest] ?? 0)) oldest = reader;
    this.#next[oldest] = end;
    this.#fetched[oldest] = end;
    this.#window[oldest] = 0;
    this.#lastRead[oldest] = this.#reads;
    return 0;
  }

  #advance(reader: number, end: number): number {
    const fetched = Math.max(this.#fetched[reader] ?? 0, end);
    const window = this.#window[reader] ?? 0;
    // A quarter at a time: the others are on their way, or wait to be read.
    if (fetched - end > window * 0.75) return 0;
    const wider = Math.min(Math.max(FIRST_BLOCKS, 2 * window), this.#aheadMax);
    const until = Math.min(end + wider, this.#blocks);
    this.#window[reader] = wider;
    this.#fetched[reader] = Math.max(fetched, until);
    this.aheadBlock = fetched;
    return Math.max(0, until - fetched);
  }
}
