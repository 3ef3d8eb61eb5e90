/** Where `tsbuse crash --continue` resumes: a small JSON file, locked while it is in use. */
import { closeSync } from "node:fs";
import { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { flock, open, pread, pwrite } from "../../libc/file.ts";
import { errno } from "../../uapi/errno.ts";
import { LOCK_EX, LOCK_NB, O_CREAT, O_NONBLOCK, O_RDWR } from "../../uapi/fcntl.ts";

/** Which states there are, and how many were tried. */
export interface Continued {
  /** Identifies the record and everything that the states depend on, except the seed. */
  readonly states: string;
  readonly seed: number;
  readonly done: number;
}

/** Bytes of the file, padded with blanks. It is written in one call, and never gets shorter. */
const LENGTH = 256;

export class ContinuedFile implements Disposable {
  /** Undefined: the file was missing or empty. */
  readonly before: Continued | undefined;
  readonly #fd: number = -1;

  /** @param path undefined: nothing is kept. @throws UserError */
  constructor(readonly path: string | undefined) {
    if (path === undefined) return;
    this.#fd = open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0o644);
    if (this.#fd < 0) throw new UserError(`${path} cannot be opened: ${errorText(-this.#fd)}`);
    try {
      if (flock(this.#fd, LOCK_EX | LOCK_NB) < 0)
        throw new UserError(`${path} is in use by another tsbuse crash: give another name`);
      this.before = read(this.#fd, path);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** @throws UserError */
  write(continued: Continued): void {
    if (this.#fd < 0) return;
    const written = pwrite(this.#fd, Buffer.from(`${JSON.stringify(continued).padEnd(LENGTH - 1)}\n`), 0);
    if (written === LENGTH) return;
    throw new UserError(
      `${this.path} cannot be written: ${errorText(written < 0 ? -written : errno.ENOSPC)}`,
    );
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd);
  }
}

/** Undefined if the file is empty. @throws UserError */
function read(fd: number, path: string): Continued | undefined {
  const bytes = Buffer.alloc(LENGTH + 1);
  const length = pread(fd, bytes, 0);
  if (length === 0) return undefined;
  const found = length < 0 ? undefined : parse(bytes.toString("utf8", 0, length));
  if (found !== undefined) return found;
  throw new UserError(`${path} is not of tsbuse crash --continue: give another name, or remove it`);
}

function parse(text: string): Continued | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { states, seed, done } = { states: 0, seed: 0, done: -1, ...value };
  const areNumbers = [seed, done].every((each) => Number.isSafeInteger(each) && each >= 0);
  return areNumbers && typeof states === "string" ? { states, seed, done } : undefined;
}
