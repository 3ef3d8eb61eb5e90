/** The segment that collects writes until it is sealed. */
import { ENTRIES_MAX, ENTRY, type Entry } from "./format.ts";
import { type BlockMapShape, BLOCK_BYTES } from "./parts.ts";

/** A buffer of blocks, and the changes in their order. The map changes at once. */
export class Gathering {
  /** How many blocks it holds. */
  slots = 0;
  readonly #kinds = new Uint8Array(ENTRIES_MAX);
  readonly #blocks = new Float64Array(ENTRIES_MAX);
  readonly #counts = new Uint32Array(ENTRIES_MAX);
  #entries = 0;

  /**
   * @param number its place in the log.
   * @param index by which the map knows it.
   * @param bytes whole blocks: as many as it can hold.
   */
  constructor(
    readonly number: number,
    readonly index: number,
    readonly bytes: Uint8Array<ArrayBuffer>,
    readonly map: BlockMapShape,
  ) {}

  get isEmpty(): boolean {
    return this.#entries === 0;
  }

  get isFull(): boolean {
    return this.#entries === ENTRIES_MAX || (this.slots + 1) * BLOCK_BYTES > this.bytes.length;
  }

  /** Whether a write of this many blocks fits. An empty segment takes as much as it can of any write. */
  hasRoomFor(blocks: number): boolean {
    const slots = this.bytes.length / BLOCK_BYTES - this.slots;
    return this.isEmpty || (blocks <= slots && this.#entries + blocks <= ENTRIES_MAX);
  }

  /** Takes as many blocks from the start of `source` as fit, and returns how many. */
  write(source: Uint8Array, block: number): number {
    const blocks = source.length / BLOCK_BYTES;
    const { map } = this;
    let done = 0;
    while (done < blocks) {
      const run = map.find(block + done, blocks - done);
      const isOurs = map.foundIndex === this.index;
      // Overwrite blocks that this segment already has: no state of the disk lies in between.
      const slot = isOurs ? map.foundSlot : this.slots;
      const count = isOurs ? run : this.#take(block + done, run);
      if (count === 0) break;
      const bytes = source.subarray(done * BLOCK_BYTES, (done + count) * BLOCK_BYTES);
      this.bytes.set(bytes, slot * BLOCK_BYTES);
      done += count;
    }
    return done;
  }

  /** Makes holes. Returns false if there is no room. */
  clear(block: number, count: number): boolean {
    if (!this.#note(ENTRY.hole, block, count)) return false;
    this.map.clear(block, count);
    return true;
  }

  entries(): Entry[] {
    return Array.from({ length: this.#entries }, (_, index) => ({
      kind: this.#kinds[index] === ENTRY.data ? ENTRY.data : ENTRY.hole,
      block: this.#blocks[index] ?? 0,
      count: this.#counts[index] ?? 0,
    }));
  }

  /** New slots for up to `wanted` blocks; returns how many. */
  #take(block: number, wanted: number): number {
    const room = this.bytes.length / BLOCK_BYTES - this.slots;
    const count = Math.min(room, wanted);
    if (count === 0 || !this.#note(ENTRY.data, block, count)) return 0;
    this.map.set(block, count, this.index, this.slots);
    this.slots += count;
    return count;
  }

  #note(kind: Entry["kind"], block: number, count: number): boolean {
    const last = this.#entries - 1;
    const end = (this.#blocks[last] ?? 0) + (this.#counts[last] ?? 0);
    if (last >= 0 && this.#kinds[last] === kind && end === block && end + count < 2 ** 32) {
      this.#counts[last] = (this.#counts[last] ?? 0) + count;
      return true;
    }
    if (this.#entries === ENTRIES_MAX) return false;
    this.#kinds[this.#entries] = kind;
    this.#blocks[this.#entries] = block;
    this.#counts[this.#entries] = count;
    this.#entries += 1;
    return true;
  }
}
