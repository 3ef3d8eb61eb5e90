/**
 * The files of a cache in a directory: one with a slot for each chunk, one with the contents of each slot, and a lock
 * that one process holds. Nothing depends on the files: they are never synced, and anybody may remove or change them.
 * Whatever a checksum does not confirm is a miss.
 */
import { constants, fstatSync } from "node:fs";
import { join } from "node:path";
import { libc } from "tsbuse";
import { ChunkIndex, ENTRY_BYTES } from "./chunk-index.ts";
import { BLOCK_BYTES, CHUNK_BLOCKS } from "./parts.ts";

const CHUNK_BYTES = CHUNK_BLOCKS * BLOCK_BYTES;
/** Entries of the index read at once. */
const ENTRIES_AT_ONCE = 8192;
/** In a user's own directory nothing else may have these names, not even as a link. */
const LOCK = "tsbuse-cache.lock";
const DATA = "tsbuse-cache.chunks";
const INDEX = "tsbuse-cache.index";
const FLAGS = libc.O_RDWR | libc.O_CREAT | constants.O_NOFOLLOW;
const PRIVATE = 0o600;
/** A TiB: the memory of the index is allocated at once. */
const SLOTS_MAX = 2 ** 24;

/** Buffers are lent until a method is done. */
export class ChunkFiles {
  readonly #fds: number[] = [];
  readonly #data: libc.AsyncFile;
  readonly #entries: libc.AsyncFile;
  readonly #index: ChunkIndex;
  #active = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  /**
   * @param bytes the most that the files take; more than a TiB is not used.
   * @throws ErrnoError EWOULDBLOCK while another process uses the directory, and the errors of open(2) and
   * ftruncate(2).
   */
  constructor(directory: string, bytes: number, disk: string) {
    const wanted = Math.floor(bytes / (CHUNK_BYTES + ENTRY_BYTES));
    const capacity = Math.min(Math.max(1, wanted), SLOTS_MAX);
    try {
      const [lock, data, index] = [join(directory, LOCK), join(directory, DATA), join(directory, INDEX)];
      libc.unwrap(libc.flock(this.#open(lock), libc.LOCK_EX | libc.LOCK_NB), `flock of ${lock}`);
      const [dataFd, indexFd] = [this.#open(data), this.#open(index)];
      cut(dataFd, capacity * CHUNK_BYTES);
      cut(indexFd, capacity * ENTRY_BYTES);
      this.#index = new ChunkIndex(capacity, disk);
      this.#load(indexFd);
      this.#data = new libc.AsyncFile(dataFd, data);
      this.#entries = new libc.AsyncFile(indexFd, index);
    } catch (error) {
      this.#closeFds();
      throw error;
    }
  }

  /** Whether the files are still in the directory: the space of removed ones is freed only by {@link close}. */
  get isThere(): boolean {
    return this.#fds.every((fd) => fstatSync(fd).nlink > 0);
  }

  has(key: string): boolean {
    return this.#index.find(this.#index.hashOf(key)) >= 0;
  }

  /** Fills `target` from byte `at` of the chunk on. Returns false when the chunk is missing or damaged. */
  async read(key: string, at: number, target: Uint8Array): Promise<boolean> {
    const hash = this.#index.hashOf(key);
    const slot = this.#index.find(hash);
    if (slot < 0 || at + target.length > this.#index.lengthOf(slot)) return false;
    this.#begin();
    this.#index.pin(slot);
    const isIntact = (await this.#readSlot(slot, at, target)) && this.#index.isIntact(slot, at, target);
    if (!isIntact && this.#index.find(hash) === slot) this.#index.drop(slot);
    this.#index.unpin(slot);
    this.#end();
    return isIntact;
  }

  /** Stores a chunk, unless every slot is being read or written. @throws ErrnoError */
  async write(key: string, bytes: Uint8Array): Promise<void> {
    const slot = this.#index.take();
    if (slot < 0) return;
    this.#begin();
    try {
      await this.#writeSlot(slot, bytes);
      this.#index.put(slot, this.#index.hashOf(key), bytes);
      await this.#entries.write(this.#index.encode(slot), slot * ENTRY_BYTES);
    } finally {
      this.#end();
    }
  }

  /** Waits for what is in flight. Callers begin nothing after that. */
  async close(): Promise<void> {
    if (this.#active > 0) await (this.#idle = Promise.withResolvers<void>()).promise;
    await this.#data.close();
    await this.#entries.close();
    this.#closeFds();
  }

  async #readSlot(slot: number, at: number, target: Uint8Array): Promise<boolean> {
    try {
      await this.#data.read(target, slot * CHUNK_BYTES + at);
      return true;
    } catch {
      // The file was truncated, or its disk is broken: the bucket has the chunk.
      return false;
    }
  }

  async #writeSlot(slot: number, bytes: Uint8Array): Promise<void> {
    try {
      await this.#data.write(bytes, slot * CHUNK_BYTES);
    } catch (error) {
      this.#index.giveBack(slot);
      throw error;
    }
  }

  #begin(): void {
    this.#active += 1;
  }

  #end(): void {
    this.#active -= 1;
    if (this.#active === 0) this.#idle?.resolve();
  }

  #open(path: string): number {
    const fd = libc.unwrap(libc.open(path, FLAGS, PRIVATE), `open ${path}`);
    this.#fds.push(fd);
    return fd;
  }

  #load(fd: number): void {
    const entries = new Uint8Array(new ArrayBuffer(ENTRIES_AT_ONCE * ENTRY_BYTES));
    for (let first = 0; ; first += ENTRIES_AT_ONCE) {
      const bytes = libc.pread(fd, entries, first * ENTRY_BYTES);
      if (bytes > 0) this.#index.load(entries.subarray(0, bytes), first);
      if (bytes < entries.length) return;
    }
  }

  #closeFds(): void {
    for (const fd of this.#fds.splice(0).toReversed()) libc.close(fd);
  }
}

/** Truncates a file that is longer than this. */
function cut(fd: number, bytes: number): void {
  if (fstatSync(fd).size > bytes) libc.unwrap(libc.ftruncate(fd, bytes), "ftruncate");
}
