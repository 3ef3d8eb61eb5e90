/**
 * Chunks in a local directory of bounded size. They are there again after a restart; nothing but speed is lost with
 * them. A disk that is full, or files that were removed, make it do without for a while.
 */
import { mkdirSync } from "node:fs";
import { ErrnoError, UserError } from "tsbuse";
import { ChunkFiles } from "./chunk-files.ts";
import type { ChunkStore } from "./chunk-store.ts";

/** How long it does without after a failure, and how often it looks whether its files are there, in milliseconds. */
const RETRY_MS = 5000;
const LOOK_MS = 1000;
const PRIVATE = 0o700;

export interface DirectoryOptions {
  readonly directory: string;
  /** What its files have at most. */
  readonly bytes: number;
  /** Which disk the chunks are of. Those of another one are not found, and make room in time. */
  readonly disk: string;
  /** Takes a line when chunks cannot be kept any more. */
  readonly report: (line: string) => void;
  /** Milliseconds, from anywhere. Default performance.now. */
  readonly now?: () => number;
}

/** Another process has the directory. */
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

  /** @throws UserError for a directory that is of no use, or in use. */
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

  /** Files that were removed take space until they are closed; new ones are made where they were. */
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

/** Of an ErrnoError, or of an error of node:fs. */
function codeOf(error: unknown): string {
  if (error instanceof ErrnoError) return error.code;
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
