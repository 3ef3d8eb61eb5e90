/** Which blocks of a device an overlay has: a bit for each, in the form in which an overlay file stores them. */

/** Bytes of a block: what the overlay has or has not. */
export const OVERLAY_BLOCK = 4096;
/** Bytes of the map that are written at once: those of a page. */
export const MAP_PAGE = 4096;
const BITS = 8;

export class BlockMap {
  /** Bit 0 of byte 0 is block 0. Whole pages. */
  readonly bytes: Uint8Array;
  readonly #changedPages = new Set<number>();

  /** @param blocks how many the device has. */
  constructor(blocks: number) {
    this.bytes = new Uint8Array(new ArrayBuffer(mapBytes(blocks)));
  }

  has(block: number): boolean {
    return ((this.#byte(block) >> (block % BITS)) & 1) === 1;
  }

  /** Puts blocks in, from `first` to `end` - 1. */
  add(first: number, end: number): void {
    let block = first;
    while (block < end && block % BITS !== 0) this.#set(block++);
    const wholeEnd = Math.max(block, end - (end % BITS));
    this.bytes.fill(0xff, block / BITS, wholeEnd / BITS);
    for (block = wholeEnd; block < end; block += 1) this.#set(block);
    const lastPage = Math.ceil(end / BITS / MAP_PAGE);
    for (let page = Math.floor(first / BITS / MAP_PAGE); page < lastPage; page += 1) {
      this.#changedPages.add(page);
    }
  }

  /** The end of the run that begins with `first`: blocks that are all in, or all not, and lie before `end`. */
  runEnd(first: number, end: number): number {
    const inside = this.has(first);
    const alike = inside ? 0xff : 0;
    let block = first + 1;
    while (block < end) {
      if (block % BITS === 0 && this.#byte(block) === alike) block += BITS;
      else if (this.has(block) === inside) block += 1;
      else break;
    }
    return Math.min(block, end);
  }

  /** Hands each page that was changed since it was stored to `store`, and forgets it when that returns. */
  storeChanges(store: (bytes: Uint8Array, offset: number) => void): void {
    for (const page of this.#changedPages) {
      const offset = page * MAP_PAGE;
      store(this.bytes.subarray(offset, offset + MAP_PAGE), offset);
      this.#changedPages.delete(page);
    }
  }

  get changed(): boolean {
    return this.#changedPages.size > 0;
  }

  #byte(block: number): number {
    return this.bytes[Math.floor(block / BITS)] ?? 0;
  }

  #set(block: number): void {
    this.bytes[Math.floor(block / BITS)] = this.#byte(block) | (1 << (block % BITS));
  }
}

/** Bytes of the map of so many blocks. */
export function mapBytes(blocks: number): number {
  return Math.ceil(blocks / BITS / MAP_PAGE) * MAP_PAGE;
}
