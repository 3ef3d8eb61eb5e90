/**
 * A file that is read and written without waiting for its disk: what the page cache holds is served at once, and for
 * everything else there is a promise. Many promises may be pending at the same time.
 */
import { ErrnoError, messageOf } from "../errors.ts";
import { errno } from "../uapi/errno.ts";
import { RWF_DSYNC } from "../uapi/fs.ts";
import { IORING_OP_READ, IORING_OP_WRITE } from "../uapi/io_uring.ts";
import { errorText } from "./errno.ts";
import { fdatasync, pread, preadNow, pwrite, pwriteDsync, pwriteNow } from "./file.ts";
import { type FileOperation, FileRing } from "./file-ring.ts";

export interface AsyncFileOptions {
  /** The file is open with O_DIRECT: offsets, lengths and buffers are aligned as that requires. Default false. */
  readonly direct?: boolean;
}

/**
 * Methods return nothing when they are done, or a promise, as those of a BlockDevice do, and throw or reject with an
 * {@link ErrnoError}. Offsets are bytes. A buffer is lent until the method is done. The caller must not overlap ranges
 * in flight.
 *
 * Promises need io_uring(7), and either O_DIRECT or a file system that can say what it has in memory (RWF_NOWAIT of
 * preadv2(2): ext4, XFS, Btrfs and block devices, not tmpfs). Otherwise every method waits, and none returns a promise.
 *
 * @example
 *     const fd = libc.unwrap(libc.open("disk.img", libc.O_RDWR), "open disk.img");
 *     const file = new libc.AsyncFile(fd, "disk.img");
 *     const device: BlockDevice = {
 *       size: 64 * 2 ** 20,
 *       read: (target, offset) => file.read(target, offset),
 *       write: (source, offset) => file.write(source, offset),
 *       flush: () => file.datasync(),
 *       close: () => file.close(),
 *     };
 */
export class AsyncFile {
  /** Why io_uring is unavailable although the file could use it: the message of the error. */
  readonly ringFailure: string | undefined;
  readonly #fd: number;
  readonly #path: string;
  readonly #ring: FileRing | undefined;
  /** Reads try the page cache first. */
  readonly #readsNow: boolean;
  #writesNow: boolean;
  /** Writes go to the page cache, or to memory, with a call that seldom waits. */
  readonly #buffered: boolean;

  /**
   * @param fd remains the caller's, to be closed after {@link close}. Only the thread that made this may use it.
   * @param path for messages.
   */
  constructor(fd: number, path: string, options: AsyncFileOptions = {}) {
    this.#fd = fd;
    this.#path = path;
    this.#buffered = options.direct !== true;
    const knowsCache = this.#buffered && canReadNow(fd);
    try {
      if (knowsCache || !this.#buffered)
        this.#ring = new FileRing(fd, (operation, result) => this.#failure(result, nameOf(operation)));
    } catch (error) {
      this.ringFailure = messageOf(error);
    }
    this.#readsNow = knowsCache && this.#ring !== undefined;
    this.#writesNow = this.#readsNow;
  }

  /** Whether methods may return promises. */
  get asynchronous(): boolean {
    return this.#ring !== undefined;
  }

  /** Fills all of `target`. EIO if the file ends before that. */
  read(target: Uint8Array, offset: number): void | Promise<void> {
    if (this.#readsNow) {
      const done = preadNow(this.#fd, target, offset);
      return done === target.byteLength ? undefined : this.#readRest(target, offset, done);
    }
    return this.#ring === undefined ? this.#readWaiting(target, offset) : this.#ring.read(target, offset);
  }

  /** Writes all of `source`. With `dsync` (RWF_DSYNC) the data is on stable storage when the write is done. */
  write(source: Uint8Array, offset: number, dsync = false): void | Promise<void> {
    if (dsync && this.#ring !== undefined) return this.#ring.write(source, offset, RWF_DSYNC);
    if (this.#writesNow) {
      const done = pwriteNow(this.#fd, source, offset);
      return done === source.byteLength ? undefined : this.#writeRest(source, offset, done);
    }
    if (this.#buffered || this.#ring === undefined) return this.#writeWaiting(source, offset, dsync);
    return this.#ring.write(source, offset, 0);
  }

  /** fdatasync(2): what was written before is on stable storage. */
  datasync(): void | Promise<void> {
    if (this.#ring !== undefined) return this.#ring.datasync();
    const result = fdatasync(this.#fd);
    if (result < 0) throw this.#failure(result, "fdatasync");
  }

  /** Waits for what is in flight. */
  close(): void | Promise<void> {
    return this.#ring?.close();
  }

  /** `done` is what preadv2(2) returned. */
  #readRest(target: Uint8Array, offset: number, done: number): void | Promise<void> {
    if (done === -errno.EAGAIN) return this.#ring?.read(target, offset);
    if (done <= 0) throw this.#failure(done, "read");
    return this.#ring?.read(target.subarray(done), offset + done);
  }

  /** `done` is what pwritev2(2) returned. */
  #writeRest(source: Uint8Array, offset: number, done: number): void | Promise<void> {
    if (done === -errno.EAGAIN) return this.#ring?.write(source, offset, 0);
    if (done === -errno.EOPNOTSUPP) {
      this.#writesNow = false;
      return this.#writeWaiting(source, offset, false);
    }
    if (done <= 0) throw this.#failure(done, "write");
    return this.#ring?.write(source.subarray(done), offset + done, 0);
  }

  #readWaiting(target: Uint8Array, offset: number): void {
    let done = pread(this.#fd, target, offset);
    while (done !== target.byteLength) {
      if (done < 0) throw this.#failure(done, "read");
      const more = pread(this.#fd, target.subarray(done), offset + done);
      if (more === 0) throw this.#failure(0, "read");
      done = more < 0 ? more : done + more;
    }
  }

  #writeWaiting(source: Uint8Array, offset: number, dsync: boolean): void {
    const put = dsync ? pwriteDsync : pwrite;
    let done = put(this.#fd, source, offset);
    while (done !== source.byteLength) {
      if (done < 0) throw this.#failure(done, "write");
      const more = put(this.#fd, source.subarray(done), offset + done);
      if (more === 0) throw this.#failure(0, "write");
      done = more < 0 ? more : done + more;
    }
  }

  /** `result` is a negative errno, or 0 at the end of the file. */
  #failure(result: number, what: string): ErrnoError {
    if (result === 0) return new ErrnoError("EIO", `${this.#path} is shorter than when it was attached`);
    return new ErrnoError(-result, `${what} of ${this.#path}: ${errorText(-result)}`);
  }
}

/** Whether the file system can tell what it has in the page cache. */
function canReadNow(fd: number): boolean {
  const probe = preadNow(fd, new Uint8Array(new ArrayBuffer(1)), 0);
  return probe >= 0 || probe === -errno.EAGAIN;
}

function nameOf(operation: FileOperation): string {
  if (operation === IORING_OP_READ) return "read";
  return operation === IORING_OP_WRITE ? "write" : "fdatasync";
}
