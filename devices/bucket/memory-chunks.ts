/** Chunks in memory: those that were read last. */
import type { ChunkStore } from "./chunk-store.ts";

export class MemoryChunks implements ChunkStore {
  /** In the order in which they were read, or came. */
  readonly #chunks = new Map<string, Uint8Array>();
  #bytes = 0;

  /** @param bytesMax of all chunks. */
  constructor(readonly bytesMax: number) {}

  has(key: string): boolean {
    return this.#chunks.has(key);
  }

  async read(key: string, at: number, target: Uint8Array): Promise<boolean> {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined || at + target.length > chunk.length) return false;
    this.#chunks.delete(key);
    this.#chunks.set(key, chunk);
    target.set(chunk.subarray(at, at + target.length));
    return true;
  }

  async write(key: string, bytes: Uint8Array): Promise<void> {
    this.#remove(key);
    // A part of a larger buffer would keep all of it.
    const chunk = bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
    this.#chunks.set(key, chunk);
    this.#bytes += chunk.length;
    for (const oldest of this.#chunks.keys()) {
      if (this.#bytes <= this.bytesMax) return;
      this.#remove(oldest);
    }
  }

  async close(): Promise<void> {
    this.#chunks.clear();
    this.#bytes = 0;
  }

  #remove(key: string): void {
    this.#bytes -= this.#chunks.get(key)?.length ?? 0;
    this.#chunks.delete(key);
  }
}
