/** Chunks in memory: those that were read last. */
import type { ChunkCacheShape } from "./parts.ts";

export class MemoryCache implements ChunkCacheShape {
  /** In the order of their last use. */
  readonly #chunks = new Map<string, Uint8Array>();
  readonly #loading = new Map<string, Promise<Uint8Array>>();
  #bytes = 0;

  constructor(readonly bytesMax: number) {}

  async read(key: string, at: number, target: Uint8Array, load: () => Promise<Uint8Array>): Promise<void> {
    const known = this.#chunks.get(key);
    const bytes = known ?? (await this.#load(key, load));
    if (known !== undefined) {
      this.#chunks.delete(key);
      this.#chunks.set(key, known);
    }
    target.set(bytes.subarray(at, at + target.length));
  }

  add(key: string, bytes: Uint8Array): void {
    // A part of a larger buffer would keep all of it.
    if (!this.#chunks.has(key)) this.#keep(key, bytes.slice());
  }

  has(key: string): boolean {
    return this.#chunks.has(key);
  }

  async close(): Promise<void> {
    this.#chunks.clear();
  }

  #load(key: string, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const loading = this.#loading.get(key) ?? load().finally(() => this.#loading.delete(key));
    if (!this.#loading.has(key)) void loading.then((bytes) => this.add(key, bytes)).catch(() => undefined);
    this.#loading.set(key, loading);
    return loading;
  }

  #keep(key: string, bytes: Uint8Array): void {
    this.#chunks.set(key, bytes);
    this.#bytes += bytes.length;
    for (const [oldest, { length }] of this.#chunks) {
      if (this.#bytes <= this.bytesMax) break;
      this.#chunks.delete(oldest);
      this.#bytes -= length;
    }
  }
}
