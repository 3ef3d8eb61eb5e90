/** The file of an overlay, locked by one process. */
import { fstatSync, statSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { ErrnoError, UserError } from "../errors.ts";
import { errorText, unwrap } from "../libc/errno.ts";
import { fileIdentity } from "../libc/file-identity.ts";
import * as file from "../libc/file.ts";
import { errno } from "../uapi/errno.ts";
import { LOCK_EX, LOCK_NB, O_CREAT, O_RDONLY, O_RDWR } from "../uapi/fcntl.ts";
import { openFailure } from "./files.ts";

/** Storage that is durable after a flush. Offsets and lengths are bytes; every method throws an ErrnoError. */
export interface OverlayStorage {
  /** For messages. */
  readonly path: string;
  /** Identifies the file: see {@link fileIdentity}. */
  readonly identity: string;
  length(): number;
  resize(length: number): void;
  /** Reserves space for an empty range, so that a later write to it does not fail with ENOSPC. */
  allocate(offset: number, length: number): void;
  read(target: Uint8Array, offset: number): void;
  write(source: Uint8Array, offset: number): void;
  /** Makes the range read as zeroes, and frees its space. */
  discard(offset: number, length: number): void;
  /** Makes the range read as zeroes, and keeps its space. */
  zero(offset: number, length: number): void;
  /** Makes everything done before durable. */
  flush(): void;
  close(): void;
}

/** Zeroes to write piece by piece where the file system has no faster way. */
const ZEROES = new Uint8Array(new ArrayBuffer(256 * 1024));

export class FileStorage implements OverlayStorage {
  readonly #fd: number;
  readonly #isNew: boolean;

  /** Opens or creates the file. @throws UserError if that fails, or another process uses it. */
  constructor(readonly path: string) {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats?.isFile() === false) throw new UserError(`${path} is not a regular file: give another name`);
    this.#isNew = stats === undefined;
    this.#fd = file.open(path, O_RDWR | O_CREAT, 0o600);
    if (this.#fd < 0) throw openFailure(path, this.#fd);
    if (file.flock(this.#fd, LOCK_EX | LOCK_NB) === -errno.EAGAIN) {
      this.close();
      throw new UserError(`${path} is the overlay of another process: detach its device first`);
    }
    if (!this.#isNew) return;
    try {
      syncDirectory(dirname(path));
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  /** The device number of its file system: st_dev. */
  get device(): bigint {
    return fstatSync(this.#fd, { bigint: true }).dev;
  }

  get identity(): string {
    return fileIdentity(this.#fd);
  }

  length(): number {
    return fstatSync(this.#fd).size;
  }

  resize(length: number): void {
    this.#check(file.ftruncate(this.#fd, length), "resizing");
  }

  allocate(offset: number, length: number): void {
    const result = file.allocate(this.#fd, offset, length);
    if (result === -errno.EOPNOTSUPP) this.#writeZeroes(offset, length);
    else this.#check(result, "setting space aside");
  }

  read(target: Uint8Array, offset: number): void {
    for (let done = 0; done < target.length;) {
      const rest = done === 0 ? target : target.subarray(done);
      const count = this.#check(file.pread(this.#fd, rest, offset + done), "reading");
      if (count === 0) throw new ErrnoError("EIO", `overlay ${this.path} is shorter than when it was opened`);
      done += count;
    }
  }

  write(source: Uint8Array, offset: number): void {
    for (let done = 0; done < source.length;) {
      const rest = done === 0 ? source : source.subarray(done);
      done += this.#check(file.pwrite(this.#fd, rest, offset + done), "writing");
    }
  }

  discard(offset: number, length: number): void {
    const result = file.punchHole(this.#fd, offset, length);
    if (result === -errno.EOPNOTSUPP) this.zero(offset, length);
    else this.#check(result, "punching a hole");
  }

  zero(offset: number, length: number): void {
    const result = file.zeroRange(this.#fd, offset, length);
    if (result === -errno.EOPNOTSUPP) this.#writeZeroes(offset, length);
    else this.#check(result, "zeroing");
  }

  flush(): void {
    this.#check(file.fdatasync(this.#fd), "fdatasync");
  }

  close(): void {
    file.close(this.#fd);
  }

  /** Closes the file and removes it if it is new, before it gives up the lock. Does not fail. */
  abandon(): void {
    try {
      if (this.#isNew) unlinkSync(this.path);
    } catch {
      // The caller reports why it abandons the file. The next process makes an incomplete file anew.
    }
    this.close();
  }

  #writeZeroes(offset: number, length: number): void {
    for (let done = 0; done < length; done += ZEROES.length)
      this.write(ZEROES.subarray(0, Math.min(ZEROES.length, length - done)), offset + done);
  }

  #check(result: number, what: string): number {
    if (result >= 0) return result;
    throw new ErrnoError(-result, `${what} of overlay ${this.path}: ${errorText(-result)}`);
  }
}

/** A new file survives a crash only once its directory is durable. */
function syncDirectory(path: string): void {
  const fd = unwrap(file.open(path, O_RDONLY), `open ${path}`);
  try {
    unwrap(file.fsync(fd), `fsync ${path}`);
  } finally {
    file.close(fd);
  }
}
