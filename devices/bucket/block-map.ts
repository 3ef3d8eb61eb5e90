/**
 * Where each block of a disk lies: the slot of a segment, or nowhere, which is a hole. A block takes four bytes, in
 * leaves of 1024 blocks: 1 GiB for a full TiB, and 8 MiB for what is around them. A leaf of holes takes none.
 *
 * Allocates nothing but the memory of the map itself.
 */
import { LEAF_WORDS, LeafPool } from "./leaf-pool.ts";
import { decodePage, encodePage } from "./map-page.ts";
import { type BlockMapShape, SEGMENT_BLOCKS_MAX } from "./parts.ts";
import { SegmentTable } from "./segment-table.ts";

/** Leaves in a piece. */
const PIECE_LEAVES = 64;
/** Blocks in a piece, 256 MiB: the part of the map that becomes a page of a checkpoint. */
const PIECE_BLOCKS = PIECE_LEAVES * LEAF_WORDS;
const HOLE = -1;
const WORD_BYTES = 4;
const POINTER_BYTES = 8;

/** The leaves of a piece: 1 + the number of each leaf, or 0 for a leaf that is all holes. */
interface Piece {
  readonly leaves: Uint32Array;
  used: number;
}

/**
 * A word of a leaf is 0 for a hole, else 1 + (index of the segment) * 4096 + slot. Callers pass ranges within the disk,
 * slots within their segment, and indexes in use.
 */
export class BlockMap implements BlockMapShape {
  /** The result of the last {@link find}. */
  foundIndex = HOLE;
  foundSlot = 0;
  readonly #segments = new SegmentTable();
  readonly #leaves = new LeafPool();
  readonly #pieces: (Piece | undefined)[];
  #piecesUsed = 0;

  constructor(readonly blocks: number) {
    this.#pieces = Array.from({ length: Math.ceil(blocks / PIECE_BLOCKS) }, () => undefined);
  }

  get memoryBytes(): number {
    const pieces = this.#pieces.length * POINTER_BYTES + this.#piecesUsed * PIECE_LEAVES * WORD_BYTES;
    return pieces + this.#leaves.memoryBytes + this.#segments.memoryBytes;
  }

  get liveBlocks(): number {
    return this.#segments.liveBlocks;
  }

  addSegment(number: number): number {
    return this.#segments.add(number);
  }

  removeSegment(index: number): void {
    this.#segments.remove(index);
  }

  segmentNumber(index: number): number | undefined {
    return this.#segments.numberOf(index);
  }

  /** The index of the segment of this number, if it has one. */
  segmentIndex(number: number): number | undefined {
    return this.#segments.indexOf(number);
  }

  liveIn(index: number): number {
    return this.#segments.liveIn(index);
  }

  segments(): IterableIterator<number> {
    return this.#segments.indexes();
  }

  find(block: number, count: number): number {
    const word = this.#wordOf(block);
    this.foundIndex = word === 0 ? HOLE : indexOf(word);
    this.foundSlot = word === 0 ? 0 : slotOf(word);
    const end = block + count;
    // A run ends with its segment, even where the next segment has the next word.
    const stop = word === 0 ? end : Math.min(end, block + SEGMENT_BLOCKS_MAX - this.foundSlot);
    return (word === 0 ? this.#holeEnd(block, stop) : this.#placesEnd(block, stop, word)) - block;
  }

  set(block: number, count: number, index: number, slot: number): void {
    this.#store(block, block + count, wordOf(index, slot));
    this.#segments.account(index, count);
  }

  clear(block: number, count: number): void {
    this.#store(block, block + count, 0);
  }

  *pages(): Generator<Uint8Array<ArrayBuffer>, void> {
    for (const [index, piece] of this.#pieces.entries()) {
      if (piece === undefined) continue;
      const first = index * PIECE_BLOCKS;
      yield encodePage(this, first, Math.min(PIECE_BLOCKS, this.blocks - first), this.#segments.end);
    }
  }

  load(page: Uint8Array): void {
    const { first, segments, runs, places } = decodePage(page, this.blocks);
    const indexes = segments.map((number) => this.segmentIndex(number) ?? this.addSegment(number));
    let block = first;
    let next = 0;
    for (const run of runs) {
      const count = run >>> 1;
      if ((run & 1) === 0) this.clear(block, count);
      else {
        const place = places[next++] ?? 0;
        this.set(block, count, indexes[indexOf(1 + place)] ?? 0, place % SEGMENT_BLOCKS_MAX);
      }
      block += count;
    }
  }

  /** Blocks from `first` up to `end` get `word` and the words that follow it, or all get 0 if `word` is 0. */
  #store(first: number, end: number, word: number): void {
    let block = first;
    while (block < end) {
      const index = Math.floor(block / PIECE_BLOCKS);
      const stop = Math.min(end, (index + 1) * PIECE_BLOCKS);
      const piece = this.#pieces[index] ?? (word === 0 ? undefined : this.#addPiece(index));
      if (piece !== undefined) this.#storeInPiece(piece, block, stop, word === 0 ? 0 : word + block - first);
      if (piece?.used === 0) this.#dropPiece(index);
      block = stop;
    }
  }

  #storeInPiece(piece: Piece, first: number, end: number, word: number): void {
    let block = first;
    while (block < end) {
      const stop = Math.min(end, leafEnd(block));
      const at = leafWithin(block);
      let leaf = (piece.leaves[at] ?? 0) - 1;
      if (leaf < 0 && word !== 0) {
        leaf = this.#leaves.take();
        piece.leaves[at] = leaf + 1;
        piece.used += 1;
      }
      if (leaf >= 0 && this.#storeInLeaf(leaf, block, stop, word === 0 ? 0 : word + block - first)) {
        piece.leaves[at] = 0;
        piece.used -= 1;
      }
      block = stop;
    }
  }

  /** Returns whether the leaf is now free. */
  #storeInLeaf(leaf: number, first: number, end: number, word: number): boolean {
    const words = this.#leaves.words(leaf);
    const at = this.#leaves.base(leaf) + (first % LEAF_WORDS);
    const count = end - first;
    let used = 0;
    for (let index = 0; index < count; index += 1) {
      const before = words[at + index] ?? 0;
      if (before !== 0) {
        this.#segments.account(indexOf(before), -1);
        used -= 1;
      }
      words[at + index] = word === 0 ? 0 : word + index;
    }
    return this.#leaves.account(leaf, word === 0 ? used : used + count);
  }

  #addPiece(index: number): Piece {
    const piece = { leaves: new Uint32Array(PIECE_LEAVES), used: 0 };
    this.#pieces[index] = piece;
    this.#piecesUsed += 1;
    return piece;
  }

  #dropPiece(index: number): void {
    this.#pieces[index] = undefined;
    this.#piecesUsed -= 1;
  }

  /** The leaf of a block, or -1. */
  #leafOf(block: number): number {
    const piece = this.#pieces[Math.floor(block / PIECE_BLOCKS)];
    return piece === undefined ? -1 : (piece.leaves[leafWithin(block)] ?? 0) - 1;
  }

  #wordOf(block: number): number {
    const leaf = this.#leafOf(block);
    if (leaf < 0) return 0;
    return this.#leaves.words(leaf)[this.#leaves.base(leaf) + (block % LEAF_WORDS)] ?? 0;
  }

  /** Where the run of holes that begins at `first` ends, at most `end`. */
  #holeEnd(first: number, end: number): number {
    let block = first;
    while (block < end) {
      const leaf = this.#leafOf(block);
      if (leaf < 0) {
        const hasPiece = this.#pieces[Math.floor(block / PIECE_BLOCKS)] !== undefined;
        block = hasPiece ? leafEnd(block) : block - (block % PIECE_BLOCKS) + PIECE_BLOCKS;
        continue;
      }
      const words = this.#leaves.words(leaf);
      const stop = Math.min(end, leafEnd(block));
      const shift = this.#leaves.base(leaf) + (block % LEAF_WORDS) - block;
      while (block < stop && words[shift + block] === 0) block += 1;
      if (block < stop) break;
    }
    return Math.min(block, end);
  }

  /** The first block that does not continue the run of slots that begins with `first` at `word`, or `end`. */
  #placesEnd(first: number, end: number, word: number): number {
    let block = first;
    while (block < end) {
      const leaf = this.#leafOf(block);
      if (leaf < 0) break;
      const words = this.#leaves.words(leaf);
      const stop = Math.min(end, leafEnd(block));
      const shift = this.#leaves.base(leaf) + (block % LEAF_WORDS) - block;
      while (block < stop && words[shift + block] === word + block - first) block += 1;
      if (block < stop) break;
    }
    return block;
  }
}

function wordOf(index: number, slot: number): number {
  return 1 + index * SEGMENT_BLOCKS_MAX + slot;
}

function indexOf(word: number): number {
  return Math.floor((word - 1) / SEGMENT_BLOCKS_MAX);
}

function slotOf(word: number): number {
  return (word - 1) % SEGMENT_BLOCKS_MAX;
}

/** The index of a block's leaf within its piece. */
function leafWithin(block: number): number {
  return Math.floor((block % PIECE_BLOCKS) / LEAF_WORDS);
}

/** The first block of the next leaf. */
function leafEnd(block: number): number {
  return block - (block % LEAF_WORDS) + LEAF_WORDS;
}
