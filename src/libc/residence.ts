/**
 * Which parts of a file in memory are fully allocated. Reading a missing page through the mapping allocates it, without
 * asking the guard that limits writes, and asking the kernel takes longer than a short read. So a chunk with no page
 * missing is remembered until memory is given back.
 */
import { libc } from "./library.ts";
import { PAGE } from "./pagemap.ts";

/** A byte for each chunk, for all threads that use the memory: 1 if no page is missing. */
export type ResidenceState = Uint8Array<SharedArrayBuffer>;

/** The minimum size of a chunk, in bytes. A power of two: whole pages, whose states fit the buffer {@link pages}. */
const CHUNK_BYTES_MIN = 65_536;
const CHUNKS_MAX = 2 ** 22;
const WHOLE = 1;

/** The answer of mincore(2) for the pages of a chunk, in the lowest bits: with 16 TiB a chunk has 1024 pages. */
const pages = new Uint8Array(new ArrayBuffer(4096));

/** Offsets are bytes within the memory. A check of a range makes no objects. */
export class Residence {
  readonly state: ResidenceState;
  readonly #address: number;
  readonly #size: number;
  readonly #chunkBytes: number;

  /**
   * @param address of the memory, of `size` bytes.
   * @param state of another thread for the same memory.
   */
  constructor(address: number, size: number, state?: ResidenceState) {
    let chunkBytes = CHUNK_BYTES_MIN;
    while (size / chunkBytes > CHUNKS_MAX) chunkBytes *= 2;
    this.#address = address;
    this.#size = size;
    this.#chunkBytes = chunkBytes;
    this.state = state ?? new Uint8Array(new SharedArrayBuffer(Math.ceil(size / chunkBytes)));
  }

  /** Whether every page of the range is in memory: none is missing or swapped out. */
  isWhole(offset: number, length: number): boolean {
    const end = offset + length;
    for (let chunk = Math.floor(offset / this.#chunkBytes); chunk * this.#chunkBytes < end; chunk += 1)
      if (this.state[chunk] !== WHOLE && !this.#look(chunk, offset, end)) return false;
    return true;
  }

  /** Call it before giving memory back. A read that checks at that moment may allocate a chunk again. */
  forget(offset: number, length: number): void {
    const [first, end] = [offset / this.#chunkBytes, (offset + length) / this.#chunkBytes];
    this.state.fill(0, Math.floor(first), Math.ceil(end));
  }

  /** Asks the kernel about a chunk. Returns whether the part in the range is complete. */
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
