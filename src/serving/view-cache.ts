/** Views of a buffer, made once and found again, so that a request does not cost an allocation. */

/** Lengths are whole multiples of this many bytes: the smallest block. */
const LENGTH_UNIT = 512;
/** A key is a position times this plus a length, both in their units; the longest payload is 65,536 units. */
const KEY_STRIDE = 65_537;
/** Views kept: the positions of full batches at a few sizes of request. Beyond it the cache starts over. */
const VIEWS_MAX = 8192;

export class ViewCache {
  readonly #views = new Map<number, Uint8Array>();

  /** @param alignment bytes: every position is a multiple of it. */
  constructor(
    readonly buffer: ArrayBufferLike,
    readonly base: number,
    readonly alignment: number,
  ) {}

  /** The `length` bytes at `position` of the area, both in bytes. */
  view(position: number, length: number): Uint8Array {
    const key = (position / this.alignment) * KEY_STRIDE + length / LENGTH_UNIT;
    const found = this.#views.get(key);
    return found ?? this.#make(key, position, length);
  }

  #make(key: number, position: number, length: number): Uint8Array {
    if (this.#views.size === VIEWS_MAX) this.#views.clear();
    const view = new Uint8Array(this.buffer, this.base + position, length);
    this.#views.set(key, view);
    return view;
  }
}
