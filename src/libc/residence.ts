/**
 * Which parts of a file in memory have all of their memory. To look at a page that has none takes memory, whatever
 * guards those who write, and to ask the kernel takes longer than a short read. So its answer is kept for each chunk of
 * which no page is missing, until memory is given back.
 */
import { libc } from "./library.ts";
import { PAGE } from "./pagemap.ts";

/** A byte for each chunk, for all threads that use the memory: 1 where no page is missing. */
export type ResidenceState = Uint8Array<SharedArrayBuffer>;

/** The bytes of a chunk, a power of two: whole pages, and as many as there is room for an answer. */
const CHUNK_BYTES_MIN = 65_536;
const CHUNKS_MAX = 2 ** 22;
const WHOLE = 1;

/** What mincore(2) says of the pages of a chunk, in the lowest bit of each: 16 TiB in so many chunks have 1024. */
const pages = new Uint8Array(new ArrayBuffer(4096));

/** Offsets are bytes within the memory. Nothing is allocated for a range. */
export class Residence {
  readonly state: ResidenceState;
  readonly #address: number;
  readonly #size: number;
  readonly #chunkBytes: number;

  /**
   * @param address of the memory, of `size` bytes.
   * @param state of another thread's for the same memory.
   */
  constructor(address: number, size: number, state?: ResidenceState) {
    let chunkBytes = CHUNK_BYTES_MIN;
    while (size / chunkBytes > CHUNKS_MAX) chunkBytes *= 2;
    this.#address = address;
    this.#size = size;
    this.#chunkBytes = chunkBytes;
    this.state = state ?? new Uint8Array(new SharedArrayBuffer(Math.ceil(size / chunkBytes)));
  }

  /** Whether no page of the range is missing: it has memory, and not swap. */
  isWhole(offset: number, length: number): boolean {
    const end = offset + length;
    for (let chunk = Math.floor(offset / this.#chunkBytes); chunk * this.#chunkBytes < end; chunk += 1)
      if (this.state[chunk] !== WHOLE && !this.#look(chunk, offset, end)) return false;
    return true;
  }

  /** To be called before memory is given back. A read that looks just then may take a chunk again. */
  forget(offset: number, length: number): void {
    const [first, end] = [offset / this.#chunkBytes, (offset + length) / this.#chunkBytes];
    this.state.fill(0, Math.floor(first), Math.ceil(end));
  }

  /** Asks the kernel about a chunk. Returns whether no page is missing of the part that is in the range. */
  #look(chunk: number, offset: number, end: number): boolean {
    const first = chunk * this.#chunkBytes;
    const length = Math.min(this.#chunkBytes, this.#size - first);
    if (libc.mincore(this.#address + first, length, pages) !== 0) return false;
    let isWhole = true;
    for (let page = 0, at = first; at < first + length; page += 1, at += PAGE) {
      if (((pages[page] ?? 0) & 1) === 1) continue;
      if (at < end && at + PAGE > offset) return false;
      isWhole = false;
    }
    if (isWhole) this.state[chunk] = WHOLE;
    return true;
  }
}
