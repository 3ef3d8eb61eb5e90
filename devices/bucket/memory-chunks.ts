/**
 * The most recently read chunks, in memory. The memory is one allocation, so that adding and evicting chunks costs
 * nothing.
 */
import type { ChunkStore } from "./chunk-store.ts";
import { CHUNK_BYTES } from "./packing.ts";

export class MemoryChunks implements ChunkStore {
  /** The slot of each chunk, the one read or stored longest ago first. */
  readonly #slots = new Map<string, number>();
  readonly #lengths: Uint32Array;
  readonly #memory: Uint8Array;
  readonly #free: number[] = [];

  /** @param bytesMax the most bytes of all chunks. */
  constructor(bytesMax: number) {
    const capacity = Math.floor(bytesMax / CHUNK_BYTES);
    this.#lengths = new Uint32Array(capacity);
    // Pages never written take no memory.
    this.#memory = new Uint8Array(capacity * CHUNK_BYTES);
    for (let slot = capacity - 1; slot >= 0; slot -= 1) this.#free.push(slot);
  }

  has(key: string): boolean {
    return this.#slots.has(key);
  }

  async read(key: string, at: number, target: Uint8Array): Promise<boolean> {
    const slot = this.#slots.get(key);
    if (slot === undefined || at + target.length > (this.#lengths[slot] ?? 0)) return false;
    this.#slots.delete(key);
    this.#slots.set(key, slot);
    const from = slot * CHUNK_BYTES + at;
    target.set(this.#memory.subarray(from, from + target.length));
    return true;
  }

  async write(key: string, bytes: Uint8Array): Promise<void> {
    const slot = this.#take(key);
    if (slot === undefined) return;
    this.#memory.set(bytes, slot * CHUNK_BYTES);
    this.#lengths[slot] = bytes.length;
    this.#slots.set(key, slot);
  }

  async close(): Promise<void> {
    this.#slots.clear();
  }

  /** The slot of this key, a free one, or that of the least recently read chunk. */
  #take(key: string): number | undefined {
    const own = this.#slots.get(key);
    if (own !== undefined) return own;
    const free = this.#free.pop();
    if (free !== undefined) return free;
    for (const [oldest, slot] of this.#slots) {
      this.#slots.delete(oldest);
      return slot;
    }
    return undefined;
  }
}
