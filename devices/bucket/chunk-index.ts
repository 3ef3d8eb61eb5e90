/**
 * The slots of a cache in a directory: the chunk in each, the checksums of its blocks, and which slot is reused next.
 * It takes about 130 bytes of memory for a slot in use, 2 MiB for a GiB of chunks.
 */
import { BLOCK_BYTES, CHUNK_BLOCKS } from "./parts.ts";

/**
 * Offsets within an entry of the index file: the chunk's length, tag and hash, and the checksums of its blocks. An
 * entry needs no checksum of its own: a wrong hash matches no key, and with a wrong length or checksum the chunk is not
 * intact.
 */
const AT = { length: 0, tag: 4, hash: 8, sums: 16 } as const;
export const ENTRY_BYTES = AT.sums + 4 * CHUNK_BLOCKS;
/** Part of every hash, so that chunks of another format are never found. */
const FORMAT = "tsbuse chunks 1";
const NONE = -1;
const HASH_SHIFT = 11n;

/** A chunk's key in 85 bits. Among a million keys, two collide in one of 10^13 caches. */
export interface KeyHash {
  /** A whole number of 53 bits. */
  readonly hash: number;
  /** A whole number of 32 bits. */
  readonly tag: number;
}

/**
 * A slot is free, holds a chunk, or is pinned while a chunk is written or read. A pinned slot is not given to another
 * chunk.
 */
export class ChunkIndex {
  readonly #seed: bigint;
  readonly #slots = new Map<number, number>();
  /** By slot: the chunk's hash, or {@link NONE}; its tag; its length; the checksums of its blocks. */
  readonly #hashes: Float64Array;
  readonly #tags: Uint32Array;
  readonly #lengths: Uint32Array;
  readonly #sums: Uint32Array;
  /** By slot: how many users it has; whether it was read since the hand passed. */
  readonly #pins: Uint16Array;
  readonly #recent: Uint8Array;
  readonly #free: number[] = [];
  /** Slots from here on have never been used. */
  #used = 0;
  #hand = 0;

  /** @param disk that the chunks belong to. Chunks of another disk are not found, and are replaced in time. */
  constructor(
    readonly capacity: number,
    disk: string,
  ) {
    this.#seed = Bun.hash.xxHash3(`${FORMAT} ${disk}`);
    this.#hashes = new Float64Array(capacity);
    this.#tags = new Uint32Array(capacity);
    this.#lengths = new Uint32Array(capacity);
    this.#sums = new Uint32Array(capacity * CHUNK_BLOCKS);
    this.#pins = new Uint16Array(capacity);
    this.#recent = new Uint8Array(capacity);
  }

  hashOf(key: string): KeyHash {
    const hash = Number(Bun.hash.xxHash3(key, this.#seed) >> HASH_SHIFT);
    return { hash, tag: Bun.hash.crc32(key) };
  }

  /** The slot of a chunk, or -1. */
  find({ hash, tag }: KeyHash): number {
    const slot = this.#slots.get(hash);
    return slot !== undefined && this.#tags[slot] === tag ? slot : NONE;
  }

  /** Bytes of the slot's chunk. */
  lengthOf(slot: number): number {
    return this.#lengths[slot] ?? 0;
  }

  /** Marks the slot as being read. */
  pin(slot: number): void {
    this.#pins[slot] = (this.#pins[slot] ?? 0) + 1;
    this.#recent[slot] = 1;
  }

  unpin(slot: number): void {
    this.#pins[slot] = (this.#pins[slot] ?? 0) - 1;
  }

  /** A slot to write to, pinned, its previous chunk dropped; -1 while all are pinned. */
  take(): number {
    const slot = this.#free.pop() ?? (this.#used < this.capacity ? this.#addSlot() : this.#evict());
    if (slot !== NONE) this.#pins[slot] = 1;
    return slot;
  }

  /** Records the chunk in the slot that {@link take} gave, and unpins the slot. */
  put(slot: number, { hash, tag }: KeyHash, bytes: Uint8Array): void {
    this.#map(slot, hash, tag, bytes.length);
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
      this.#sums[slot * CHUNK_BLOCKS + at / BLOCK_BYTES] = Bun.hash.crc32(
        bytes.subarray(at, at + BLOCK_BYTES),
      );
    this.unpin(slot);
  }

  /** Frees the slot that {@link take} gave: it was not written. */
  giveBack(slot: number): void {
    this.unpin(slot);
    this.#free.push(slot);
  }

  /** Forgets the slot's chunk, which is damaged. */
  drop(slot: number): void {
    this.#unmap(slot);
  }

  /** Whether `bytes`, read at byte `at` of the slot's chunk, are what was written. Both are whole blocks. */
  isIntact(slot: number, at: number, bytes: Uint8Array): boolean {
    const first = slot * CHUNK_BLOCKS + at / BLOCK_BYTES;
    for (let index = 0; index < bytes.length / BLOCK_BYTES; index += 1) {
      const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      if (Bun.hash.crc32(block) !== this.#sums[first + index]) return false;
    }
    return true;
  }

  /** The slot's entry of the index file. */
  encode(slot: number): Uint8Array<ArrayBuffer> {
    const entry = new DataView(new ArrayBuffer(ENTRY_BYTES));
    entry.setUint32(AT.length, this.lengthOf(slot), true);
    entry.setUint32(AT.tag, this.#tags[slot] ?? 0, true);
    entry.setFloat64(AT.hash, this.#hashes[slot] ?? NONE, true);
    for (let block = 0; block < CHUNK_BLOCKS; block += 1)
      entry.setUint32(AT.sums + 4 * block, this.#sums[slot * CHUNK_BLOCKS + block] ?? 0, true);
    return new Uint8Array(entry.buffer);
  }

  /** Reads entries of the index file for the slots from `first` on. Skips empty ones. */
  load(entries: Uint8Array, first: number): void {
    const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
    const count = Math.min(Math.floor(entries.length / ENTRY_BYTES), this.capacity - first);
    for (let index = 0; index < count; index += 1) {
      const at = index * ENTRY_BYTES;
      const length = view.getUint32(at + AT.length, true);
      if (length === 0 || length > CHUNK_BLOCKS * BLOCK_BYTES) continue;
      const slot = first + index;
      while (this.#used <= slot) this.#free.push(this.#addSlot());
      this.#free.pop();
      this.#map(slot, view.getFloat64(at + AT.hash, true), view.getUint32(at + AT.tag, true), length);
      for (let block = 0; block < CHUNK_BLOCKS; block += 1)
        this.#sums[slot * CHUNK_BLOCKS + block] = view.getUint32(at + AT.sums + 4 * block, true);
    }
  }

  #addSlot(): number {
    this.#hashes[this.#used] = NONE;
    this.#used += 1;
    return this.#used - 1;
  }

  /** The next slot that is not pinned and was not read since the hand passed: each has a second chance. */
  #evict(): number {
    for (let steps = 2 * this.capacity; steps > 0; steps -= 1) {
      const slot = this.#hand;
      this.#hand = (slot + 1) % this.capacity;
      if ((this.#pins[slot] ?? 0) > 0) continue;
      if (this.#recent[slot] === 0) {
        this.#unmap(slot);
        return slot;
      }
      this.#recent[slot] = 0;
    }
    return NONE;
  }

  #map(slot: number, hash: number, tag: number, length: number): void {
    const other = this.#slots.get(hash);
    if (other !== undefined) this.#unmap(other);
    this.#slots.set(hash, slot);
    this.#hashes[slot] = hash;
    this.#tags[slot] = tag;
    this.#lengths[slot] = length;
    this.#recent[slot] = 0;
  }

  #unmap(slot: number): void {
    const hash = this.#hashes[slot] ?? NONE;
    if (hash !== NONE) this.#slots.delete(hash);
    this.#hashes[slot] = NONE;
  }
}
