/**
 * Chunks of committed segments that are likely to be read again, in a directory or in memory. Simultaneous reads of one
 * chunk share one load of it.
 */
import type { ChunkStore } from "./chunk-store.ts";
import { type DirectoryOptions, DirectoryChunks, InUseError } from "./directory-chunks.ts";
import { MemoryChunks } from "./memory-chunks.ts";
import type { ChunkCacheShape } from "./parts.ts";

/** The most bytes that wait to be stored. Chunks that arrive beyond that are not cached. */
const WAITING_MAX = 64 * 2 ** 20;
/** The most chunks fetched ahead at once: each takes memory until it is stored. */
const AHEAD_MAX = 512;

/** How often to check whether a directory is free, in milliseconds. */
const LOOK_MS = 50;

/** Fetches a whole chunk. */
export type Load = () => Promise<Uint8Array>;

export class ChunkCache implements ChunkCacheShape {
  readonly #store: ChunkStore;
  /** Chunks being fetched, or waiting to be stored. */
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

  /** @throws UserError for a directory that is unusable or in use. */
  static inDirectory(options: DirectoryOptions): ChunkCache {
    return new ChunkCache(new DirectoryChunks(options));
  }

  /**
   * Like {@link inDirectory}, but waits for a process that is ending: a killed one holds its files for a moment.
   * @throws UserError when it is still in use after `waitMs`.
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

  /** How many chunks are being fetched, or wait to be stored. */
  get coming(): number {
    return this.#coming.size;
  }

  has(key: string): boolean {
    return this.#coming.has(key) || this.#store.has(key);
  }

  /** `at` and the length of `target` are whole blocks. `target` is lent until the promise settles. */
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

  /** Loads a chunk that is likely to be read soon, unless it is cached or too many are being fetched. */
  fetchAhead(key: string, load: Load): void {
    if (this.#ahead >= AHEAD_MAX || this.has(key)) return;
    this.#ahead += 1;
    void this.#follow(key, load()).then(() => (this.#ahead -= 1));
  }

  /** Waits for chunks that are being stored, but not for those being fetched. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#store.close();
  }

  /** Stores a chunk once it has arrived. Never rejects: the reader of the chunk is told of a failure. */
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
