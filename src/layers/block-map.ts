/** Which blocks of a device an overlay holds: a bit for each, as an overlay file stores them. */

/** Bytes of a block, the unit that an overlay holds. */
export const OVERLAY_BLOCK = 4096;
/** Bytes of the map that are written at once: a page. */
export const MAP_PAGE = 4096;
const BITS = 8;
const EMPTY_PAGE = new Uint8Array(new ArrayBuffer(MAP_PAGE));

/** Takes a page of the map, or some pages; `offset` is that within the map. */
export type StorePages = (bytes: Uint8Array, offset: number) => void;

export class BlockMap {
  /** Bit 0 of byte 0 is block 0. Whole pages. */
  readonly bytes: Uint8Array;
  /** Pages that were changed since they were stored: by {@link storeRecent}, and by {@link storeChanges}. */
  readonly #recentPages = new Set<number>();
  readonly #changedPages = new Set<number>();

  /**
   * @param blocks how many the device has.
   * @param bytes those that an earlier map of as many blocks has left, and goes on in.
   */
  constructor(blocks: number, bytes: Uint8Array = new Uint8Array(new ArrayBuffer(mapBytes(blocks)))) {
    this.bytes = bytes;
  }

  has(block: number): boolean {
    return ((this.#byte(block) >> (block % BITS)) & 1) === 1;
  }

  /** Adds the blocks from `first` to `end` - 1. */
  add(first: number, end: number): void {
    let block = this.has(first) ? this.runEnd(first, end) : first;
    if (block >= end) return;
    const lastPage = Math.ceil(end / BITS / MAP_PAGE);
    for (let page = Math.floor(block / BITS / MAP_PAGE); page < lastPage; page += 1) {
      this.#recentPages.add(page);
      this.#changedPages.add(page);
    }
    while (block < end && block % BITS !== 0) this.#set(block++);
    const wholeEnd = Math.max(block, end - (end % BITS));
    this.bytes.fill(0xff, block / BITS, wholeEnd / BITS);
    for (block = wholeEnd; block < end; block += 1) this.#set(block);
  }

  /** Adds the blocks of a stored map: `stored` lies at `offset` within the map. Both are whole pages. */
  merge(stored: Uint8Array, offset: number): void {
    for (let at = 0; at < stored.length; at += 1)
      this.bytes[offset + at] = (this.bytes[offset + at] ?? 0) | (stored[at] ?? 0);
  }

  /** Distrusts what {@link storeChanges} has stored: every page with a block in it will be stored again. */
  distrust(): void {
    for (let page = 0; page < this.bytes.length / MAP_PAGE; page += 1)
      if (Buffer.compare(this.page(page), EMPTY_PAGE) !== 0) this.#changedPages.add(page);
  }

  /** The end of the run that begins with `first`: blocks before `end` that are all in the map, or all missing. */
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

  /** Whether {@link storeRecent} has anything to store, and likewise {@link storeChanges}. */
  get isRecent(): boolean {
    return this.#recentPages.size > 0;
  }

  get isChanged(): boolean {
    return this.#changedPages.size > 0;
  }

  /** Hands each page that was changed since it was stored to `store`, and forgets it when that returns. */
  storeRecent(store: StorePages): void {
    this.#storePages(this.#recentPages, store);
  }

  storeChanges(store: StorePages): void {
    this.#storePages(this.#changedPages, store);
  }

  page(index: number): Uint8Array {
    return this.bytes.subarray(index * MAP_PAGE, (index + 1) * MAP_PAGE);
  }

  #storePages(pages: Set<number>, store: StorePages): void {
    for (const page of pages) {
      store(this.page(page), page * MAP_PAGE);
      pages.delete(page);
    }
  }

  #byte(block: number): number {
    return this.bytes[Math.floor(block / BITS)] ?? 0;
  }

  #set(block: number): void {
    this.bytes[Math.floor(block / BITS)] = this.#byte(block) | (1 << (block % BITS));
  }
}

/** Bytes of a map for that many blocks. */
export function mapBytes(blocks: number): number {
  return Math.ceil(blocks / BITS / MAP_PAGE) * MAP_PAGE;
}
