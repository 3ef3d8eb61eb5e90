/** An overlay in a sparse file, which goes on where it was left when it is opened again. */
import { fstatSync, statSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { ErrnoError, UserError } from "../errors.ts";
import { errorText, unwrap } from "../libc/errno.ts";
import * as file from "../libc/file.ts";
import { errno } from "../uapi/errno.ts";
import { LOCK_EX, LOCK_NB, O_CREAT, O_RDONLY, O_RDWR } from "../uapi/fcntl.ts";
import { BlockMap } from "./block-map.ts";
import { openFailure } from "./files.ts";
import { blocksOf, type Overlay } from "./overlay.ts";
import { checkHeader, encodeHeader, HEADER_BYTES, type Layout, layoutFor } from "./overlay-format.ts";

/** Zeroes are written in pieces of this many bytes where the file system has no quicker way. */
const ZEROES = new Uint8Array(new ArrayBuffer(256 * 1024));

/**
 * The map in the file is never ahead of the data: a flush makes the data durable first and then the map. After a crash
 * what was written since the last flush may be gone, and what was flushed is there.
 */
export class FileOverlay implements Overlay {
  readonly map: BlockMap;
  readonly #layout: Layout;
  readonly #fd: number;

  /** @throws UserError when the file is something else, an overlay of another device, or in use. */
  constructor(
    readonly path: string,
    size: number,
  ) {
    const blocks = blocksOf(size);
    this.#layout = layoutFor(size, blocks);
    this.map = new BlockMap(blocks);
    const isNew = statSync(path, { throwIfNoEntry: false }) === undefined;
    this.#fd = openFile(path);
    try {
      if (fstatSync(this.#fd).size === 0) this.#initialise();
      else this.#load();
    } catch (error) {
      file.close(this.#fd);
      if (isNew) unlinkSync(path);
      throw error;
    }
  }

  read(target: Uint8Array, offset: number): void {
    this.#readAll(target, this.#layout.dataOffset + offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.#writeAll(source, this.#layout.dataOffset + offset);
  }

  discard(offset: number, length: number): void {
    const result = file.punchHole(this.#fd, this.#layout.dataOffset + offset, length);
    if (result === -errno.EOPNOTSUPP) this.zero(offset, length);
    else this.#check(result, "punching a hole");
  }

  zero(offset: number, length: number): void {
    const result = file.zeroRange(this.#fd, this.#layout.dataOffset + offset, length);
    if (result !== -errno.EOPNOTSUPP) {
      this.#check(result, "zeroing");
      return;
    }
    for (let done = 0; done < length; done += ZEROES.length) {
      this.write(ZEROES.subarray(0, Math.min(ZEROES.length, length - done)), offset + done);
    }
  }

  flush(): void {
    this.#check(file.fdatasync(this.#fd), "fdatasync");
    if (!this.map.changed) return;
    this.map.storeChanges((bytes, offset) => this.#writeAll(bytes, this.#layout.mapOffset + offset));
    this.#check(file.fdatasync(this.#fd), "fdatasync");
  }

  close(): void {
    try {
      this.flush();
    } finally {
      file.close(this.#fd);
    }
  }

  /** The header comes last: a file without one is not taken for an overlay. */
  #initialise(): void {
    try {
      this.#check(file.ftruncate(this.#fd, this.#layout.fileSize), "making it that long");
      this.#check(file.fsync(this.#fd), "fsync");
      this.#writeAll(encodeHeader(this.#layout), 0);
      this.#check(file.fsync(this.#fd), "fsync");
      syncDirectory(dirname(this.path));
    } catch (error) {
      throw new UserError(
        `${this.path} cannot be made an overlay of ${this.#layout.size} bytes: choose a file system with room for it`,
        { cause: error },
      );
    }
  }

  #load(): void {
    const fileSize = fstatSync(this.#fd).size;
    const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
    this.#check(file.pread(this.#fd, header, 0), "reading");
    checkHeader(this.path, header, this.#layout, fileSize);
    this.#readAll(this.map.bytes, this.#layout.mapOffset);
  }

  #readAll(target: Uint8Array, offset: number): void {
    for (let done = 0; done < target.length;) {
      const count = this.#check(file.pread(this.#fd, target.subarray(done), offset + done), "reading");
      if (count === 0) throw new ErrnoError("EIO", `overlay ${this.path} is shorter than when it was opened`);
      done += count;
    }
  }

  #writeAll(source: Uint8Array, offset: number): void {
    for (let done = 0; done < source.length;) {
      done += this.#check(file.pwrite(this.#fd, source.subarray(done), offset + done), "writing");
    }
  }

  #check(result: number, what: string): number {
    if (result >= 0) return result;
    throw new ErrnoError(-result, `${what} of overlay ${this.path}: ${errorText(-result)}`);
  }
}

/** Opens the file, makes it if it is not there, and holds it alone. @throws UserError */
function openFile(path: string): number {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() === false) throw new UserError(`${path} is not a regular file: give another name`);
  const fd = file.open(path, O_RDWR | O_CREAT, 0o600);
  if (fd < 0) throw openFailure(path, fd);
  if (file.flock(fd, LOCK_EX | LOCK_NB) === -errno.EAGAIN) {
    file.close(fd);
    throw new UserError(`${path} is the overlay of another process: detach its device first`);
  }
  return fd;
}

/** A new file survives a crash once its directory has been written. */
function syncDirectory(path: string): void {
  const fd = unwrap(file.open(path, O_RDONLY), `open ${path}`);
  try {
    unwrap(file.fsync(fd), `fsync ${path}`);
  } finally {
    file.close(fd);
  }
}
