/**
 * A regular file or a block device, served as a block device: for an image, or as one link of a chain.
 */
import {
  type BlockDevice,
  ErrnoError,
  errno,
  type Extent,
  libc,
  type WriteOptions,
  type WriteZeroesOptions,
} from "tsbuse";
import { type Backing, type LoopOptions, openBacking } from "./loop-backing.ts";

export type { LoopOptions } from "./loop-backing.ts";

/** Zeroes are written in pieces of this many bytes where the file system has no quicker way. */
const ZEROES_BYTES = 1024 * 1024;

export class Loop implements BlockDevice {
  readonly size: number;
  readonly blockSize: number;
  readonly rotational: boolean;
  readonly fua = "native" as const;
  /** Left out, with all that changes data, when the device is read-only. */
  readonly write?: (source: Uint8Array, offset: number, options: WriteOptions) => void;
  readonly flush?: () => void;
  readonly trim?: (offset: number, length: number, options: WriteOptions) => void;
  readonly writeZeroes?: (offset: number, length: number, options: WriteZeroesOptions) => void;
  /** Left out for a block device, which does not tell its holes. */
  readonly extents?: (offset: number, length: number) => Extent[];

  readonly #backing: Backing;
  #zeroesMemory: libc.Memory | undefined;
  #zeroes: Uint8Array | undefined;

  /** @throws UserError when `path` cannot be served as asked. */
  constructor(path: string, options: LoopOptions = {}) {
    const backing = openBacking(path, options);
    this.#backing = backing;
    this.size = backing.size;
    this.blockSize = backing.blockSize;
    this.rotational = backing.rotational;
    if (!backing.isBlockDevice) this.extents = this.#extents;
    if (backing.readOnly) return;
    this.write = this.#write;
    this.flush = this.#flush;
    this.writeZeroes = this.#writeZeroes;
    if (backing.canTrim) this.trim = this.#trim;
  }

  /** True when the file was made by `create`. */
  get created(): boolean {
    return this.#backing.created;
  }

  read(target: Uint8Array, offset: number): void {
    const { fd, start } = this.#backing;
    let done = libc.pread(fd, target, start + offset);
    while (done !== target.length) {
      if (done < 0) throw this.#failure(done, "read");
      const more = libc.pread(fd, target.subarray(done), start + offset + done);
      if (more === 0)
        throw new ErrnoError("EIO", `${this.#backing.path} is shorter than when it was attached`);
      done = more < 0 ? more : done + more;
    }
  }

  #write(source: Uint8Array, offset: number, options: WriteOptions): void {
    const { fd, start } = this.#backing;
    const put = options.fua ? libc.pwriteDsync : libc.pwrite;
    let done = put(fd, source, start + offset);
    while (done !== source.length) {
      if (done < 0) throw this.#failure(done, "write");
      const more = put(fd, source.subarray(done), start + offset + done);
      done = more < 0 ? more : done + more;
    }
  }

  #flush(): void {
    this.#check(libc.fdatasync(this.#backing.fd), "fdatasync");
  }

  #trim(offset: number, length: number, options: WriteOptions): void {
    const { fd, start, isBlockDevice } = this.#backing;
    const discard = isBlockDevice ? libc.discardBlocks : libc.punchHole;
    this.#check(discard(fd, start + offset, length), "trim");
    if (options.fua) this.#flush();
  }

  #writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    const { fd, start, isBlockDevice } = this.#backing;
    const at = start + offset;
    let result: number = -errno.EOPNOTSUPP;
    if (options.mayTrim) result = libc.punchHole(fd, at, length);
    if (result === -errno.EOPNOTSUPP) {
      result = isBlockDevice ? libc.zeroBlocks(fd, at, length) : libc.zeroRange(fd, at, length);
    }
    if (result === -errno.EOPNOTSUPP) this.#writeZeroBytes(offset, length);
    else this.#check(result, "write zeroes");
    if (options.fua) this.#flush();
  }

  #writeZeroBytes(offset: number, length: number): void {
    this.#zeroesMemory ??= new libc.Memory(ZEROES_BYTES);
    this.#zeroes ??= this.#zeroesMemory.bytes();
    for (let done = 0; done < length; done += ZEROES_BYTES) {
      const piece = this.#zeroes.subarray(0, Math.min(ZEROES_BYTES, length - done));
      this.#write(piece, offset + done, { fua: false });
    }
  }

  /** One extent: the data or the hole at `offset`. A block that is partly data is data. */
  #extents(offset: number, length: number): Extent[] {
    const { fd, start } = this.#backing;
    const at = start + offset;
    const end = at + length;
    const data = libc.seekData(fd, at);
    if (data === -errno.ENXIO) return [hole(length)];
    if (data < 0) throw this.#failure(data, "look for data");
    const dataBlock = data - ((data - start) % this.blockSize);
    if (dataBlock >= end) return [hole(length)];
    if (dataBlock > at) return [hole(dataBlock - at)];
    const holeAt = libc.seekHole(fd, data);
    if (holeAt < 0) throw this.#failure(holeAt, "look for a hole");
    const dataEnd = start + Math.ceil((holeAt - start) / this.blockSize) * this.blockSize;
    return [{ length: Math.min(dataEnd, end) - at, hole: false, zero: false }];
  }

  close(): void {
    this.#zeroesMemory?.close();
    libc.close(this.#backing.fd);
  }

  #check(result: number, what: string): void {
    if (result < 0) throw this.#failure(result, what);
  }

  #failure(result: number, what: string): ErrnoError {
    return new ErrnoError(-result, `${what} of ${this.#backing.path}: ${libc.errorText(-result)}`);
  }
}

function hole(length: number): Extent {
  return { length, hole: true, zero: true };
}
