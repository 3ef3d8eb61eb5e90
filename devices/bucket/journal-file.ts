/** The file of a journal, in a directory of its own. Other threads read, write and sync it. */
import { closeSync, constants, fsyncSync, mkdirSync, openSync, readFileSync, realpathSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { libc, UserError } from "tsbuse";

const FILE = "tsbuse-journal";
const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
const PRIVATE_DIRECTORY = 0o700;
const PRIVATE_FILE = 0o600;
const PATIENCE_MS = 5000;
const ZEROES_BYTES = 2 ** 20;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/** Offsets are bytes. Methods reject with the system's error. A buffer is lent until the method is done. */
export interface JournalStorage {
  /** For messages. */
  readonly name: string;
  /** Changes when data that was not synced may be lost. */
  readonly boot: string;
  /** An operation that takes longer counts as failed, in milliseconds. */
  readonly patienceMs: number;
  /** Makes the file at least this long, on stable storage; new bytes are zero. */
  reserve(bytes: number): Promise<void>;
  /** Returns how many bytes were read. */
  read(target: Uint8Array, offset: number): Promise<number>;
  write(source: Uint8Array, offset: number): Promise<void>;
  /** Done when everything written before is on stable storage. */
  datasync(): Promise<void>;
  close(): Promise<void>;
}

/** The file of a journal, locked: one process has it. */
export class JournalFile implements JournalStorage {
  readonly patienceMs = PATIENCE_MS;
  readonly boot = readFileSync(BOOT_ID, "latin1").trim();

  private constructor(
    /** The directory. */
    readonly name: string,
    readonly file: FileHandle,
  ) {}

  /** @throws UserError for a directory that is unusable or in use. */
  static async open(directory: string): Promise<JournalFile> {
    let file: FileHandle | undefined;
    try {
      const made = mkdirSync(directory, { recursive: true, mode: PRIVATE_DIRECTORY });
      file = await open(join(directory, FILE), FLAGS, PRIVATE_FILE);
      const name = realpathSync(directory);
      if (libc.flock(file.fd, libc.LOCK_EX | libc.LOCK_NB) < 0)
        throw new UserError(`${name} is in use by another process: give each disk its own journal directory`);
      // The names must be on stable storage before anything is written.
      syncDirectories(name, made === undefined ? name : dirname(realpathSync(made)));
      return new JournalFile(name, file);
    } catch (error) {
      await file?.close();
      throw error instanceof UserError ? error : uselessError(directory, error);
    }
  }

  /** Writes zeroes rather than allocating space: a later fdatasync(2) then has no metadata to write. */
  async reserve(bytes: number): Promise<void> {
    const { size } = await this.file.stat();
    if (size >= bytes) return;
    try {
      const zeroes = new Uint8Array(ZEROES_BYTES);
      for (let at = size; at < bytes; at += ZEROES_BYTES)
        await this.write(zeroes.subarray(0, Math.min(ZEROES_BYTES, bytes - at)), at);
      await this.file.sync();
    } catch (error) {
      await this.file.truncate(size);
      throw uselessError(this.name, error);
    }
  }

  async read(target: Uint8Array, offset: number): Promise<number> {
    for (let done = 0; ;) {
      const { bytesRead } = await this.file.read(target, done, target.length - done, offset + done);
      done += bytesRead;
      if (bytesRead === 0 || done === target.length) return done;
    }
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < source.length;)
      done += (await this.file.write(source, done, source.length - done, offset + done)).bytesWritten;
  }

  datasync(): Promise<void> {
    return this.file.datasync();
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

/** Syncs `directory` and its parents up to `last`. */
function syncDirectories(directory: string, last: string): void {
  for (let path = directory; ; path = dirname(path)) {
    const fd = openSync(path, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (path === last || path === dirname(path)) return;
  }
}

function uselessError(directory: string, error: unknown): UserError {
  const isFull = error instanceof Error && "code" in error && error.code === "ENOSPC";
  const why = error instanceof Error ? error.message : String(error);
  return new UserError(
    isFull
      ? `${directory} has no space for the journal: free some, or give another directory`
      : `${directory} cannot hold the journal: ${why}`,
  );
}
