/**
 * Chunks in a local directory of bounded size. They survive a restart; losing them costs only speed. When the disk is
 * full or the files were removed, the cache does without them for a while.
 */
import { mkdirSync } from "node:fs";
import { ErrnoError, UserError } from "tsbuse";
import { ChunkFiles } from "./chunk-files.ts";
import type { ChunkStore } from "./chunk-store.ts";

/** How long to do without the files after a failure, and how often to check that they exist, in milliseconds. */
const RETRY_MS = 5000;
const LOOK_MS = 1000;
const PRIVATE = 0o700;

export interface DirectoryOptions {
  readonly directory: string;
  /** The most bytes that its files take. */
  readonly bytes: number;
  /** The disk that the chunks belong to. Chunks of another disk are not found, and are replaced in time. */
  readonly disk: string;
  /** Receives a line when chunks can no longer be stored. */
  readonly report: (line: string) => void;
  /** A clock in milliseconds, from any origin. Default: performance.now. */
  readonly now?: () => number;
}

/** Another process uses the directory. */
export class InUseError extends UserError {
  override readonly name = "InUseError";
}

export class DirectoryChunks implements ChunkStore {
  readonly #options: DirectoryOptions;
  readonly #now: () => number;
  #files: ChunkFiles | undefined;
  #nextLook = 0;
  #nextTry = 0;
  #isReported = false;

  /** @throws UserError for a directory that is unusable or in use. */
  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    const { directory } = options;
    try {
      mkdirSync(directory, { recursive: true, mode: PRIVATE });
      this.#open();
    } catch (error) {
      const code = codeOf(error);
      if (code === "EAGAIN")
        throw new InUseError(
          `${directory} is in use by another process: give each disk its own cache directory`,
        );
      if (!isFull(code)) throw new UserError(`${directory} cannot hold the cache: ${messageOf(error)}`);
      this.#failed(error);
    }
  }

  has(key: string): boolean {
    return this.#files?.has(key) ?? false;
  }

  async read(key: string, at: number, target: Uint8Array): Promise<boolean> {
    return (await this.#files?.read(key, at, target)) ?? false;
  }

  async write(key: string, bytes: Uint8Array): Promise<void> {
    const now = this.#now();
    if (now < this.#nextTry) return;
    try {
      if (now >= this.#nextLook) await this.#look(now);
      if (this.#files === undefined) return;
      await this.#files.write(key, bytes);
      this.#isReported = false;
    } catch (error) {
      this.#failed(error);
    }
  }

  async close(): Promise<void> {
    const files = this.#files;
    this.#files = undefined;
    this.#nextTry = Number.POSITIVE_INFINITY;
    await files?.close();
  }

  /** Replaces files that were removed: these take space until they are closed. */
  async #look(now: number): Promise<void> {
    this.#nextLook = now + LOOK_MS;
    if (this.#files?.isThere === false) {
      const removed = this.#files;
      this.#files = undefined;
      await removed.close();
    }
    if (this.#files === undefined && this.#nextTry !== Number.POSITIVE_INFINITY) this.#open();
  }

  #open(): void {
    const { directory, bytes, disk } = this.#options;
    this.#files = new ChunkFiles(directory, bytes, disk);
  }

  #failed(error: unknown): void {
    this.#nextTry = Math.max(this.#nextTry, this.#now() + RETRY_MS);
    if (this.#isReported) return;
    this.#isReported = true;
    this.#options.report(
      `the cache in ${this.#options.directory} takes no more, reads go to the bucket: ${messageOf(error)}`,
    );
  }
}

function isFull(code: string): boolean {
  return code === "ENOSPC" || code === "EDQUOT";
}

/** The code of an ErrnoError, or of an error of node:fs. */
function codeOf(error: unknown): string {
  if (error instanceof ErrnoError) return error.code;
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
