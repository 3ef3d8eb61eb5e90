/**
 * Chunks of committed segments that are likely to be read again, in a directory or in memory. Those who want the same
 * chunk at the same time share one load of it.
 */
import type { ChunkStore } from "./chunk-store.ts";
import { type DirectoryOptions, DirectoryChunks, InUseError } from "./directory-chunks.ts";
import { MemoryChunks } from "./memory-chunks.ts";
import type { ChunkCacheShape } from "./parts.ts";

/** Bytes that wait to be kept, at most. What comes when there are more is not kept. */
const WAITING_MAX = 64 * 2 ** 20;
/** Chunks that are fetched ahead at once, at most: each takes memory until it is kept. */
const AHEAD_MAX = 512;

/** How often it looks whether a directory is free, in milliseconds. */
const LOOK_MS = 50;

/** Brings a whole chunk. */
export type Load = () => Promise<Uint8Array>;

export class ChunkCache implements ChunkCacheShape {
  readonly #store: ChunkStore;
  /** Chunks that are on their way, or wait to be kept. */
  readonly #coming = new Map<string, Promise<Uint8Array>>();
  #waitingBytes = 0;
  #ahead = 0;
  #isClosed = false;

  constructor(store: ChunkStore) {
    this.#store = store;
  }

  /** @param bytes of memory for chunks. */
  static inMemory(bytes: number): ChunkCache {
    return new ChunkCache(new MemoryChunks(bytes));
  }

  /** @throws UserError for a directory that is of no use, or in use. */
  static inDirectory(options: DirectoryOptions): ChunkCache {
    return new ChunkCache(new DirectoryChunks(options));
  }

  /**
   * As {@link inDirectory}, and waits for a process that is coming to an end: a killed one has its files for a moment.
   * @throws UserError when it is still in use after so many milliseconds.
   */
  static async whenFree(options: DirectoryOptions, waitMs: number): Promise<ChunkCache> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      try {
        return ChunkCache.inDirectory(options);
      } catch (error) {
        if (!(error instanceof InUseError) || performance.now() >= deadline) throw error;
      }
      await Bun.sleep(LOOK_MS);
    }
  }

  /** How many chunks are on their way, or wait to be kept. */
  get coming(): number {
    return this.#coming.size;
  }

  has(key: string): boolean {
    return this.#coming.has(key) || this.#store.has(key);
  }

  /** `at` and the length of `target` are whole blocks. `target` is lent until it is done. */
  async read(key: string, at: number, target: Uint8Array, load: Load): Promise<void> {
    if (!this.#coming.has(key) && (await this.#store.read(key, at, target))) return;
    let coming = this.#coming.get(key);
    if (coming === undefined) {
      coming = load();
      void this.#follow(key, coming);
    }
    const chunk = await coming;
    if (at + target.length > chunk.length) throw new Error(`chunk ${key} has ${chunk.length} bytes`);
    target.set(chunk.subarray(at, at + target.length));
  }

  /** Loads a chunk that is likely to be read soon, unless it is there or too many are on their way. */
  fetchAhead(key: string, load: Load): void {
    if (this.#ahead >= AHEAD_MAX || this.has(key)) return;
    this.#ahead += 1;
    void this.#follow(key, load()).then(() => (this.#ahead -= 1));
  }

  /** Waits for chunks that are being kept, and not for those on their way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#store.close();
  }

  /** Keeps a chunk once it has come. Never rejects: whoever reads the chunk is told of a failure. */
  async #follow(key: string, coming: Promise<Uint8Array>): Promise<void> {
    this.#coming.set(key, coming);
    const chunk = await coming.catch(() => undefined);
    if (chunk === undefined) this.#coming.delete(key);
    else await this.#keep(key, chunk);
  }

  async #keep(key: string, chunk: Uint8Array): Promise<void> {
    if (!this.#isClosed && this.#waitingBytes + chunk.length <= WAITING_MAX) {
      this.#waitingBytes += chunk.length;
      await this.#store.write(key, chunk);
      this.#waitingBytes -= chunk.length;
    }
    this.#coming.delete(key);
  }
}
