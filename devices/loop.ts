/**
 * A regular file or a block device, served as a block device: for an image, or as one link of a chain. Requests that
 * the page cache can satisfy are answered at once. Those that need the disk return a promise: see libc.AsyncFile.
 */
import { fstatSync } from "node:fs";
import {
  type BlockDevice,
  ErrnoError,
  errno,
  type Extent,
  libc,
  RepeatedError,
  type SharedDevice,
  UserError,
  type WriteOptions,
  type WriteZeroesOptions,
} from "tsbuse";
import { type Backing, type LoopOptions, openBacking } from "./loop-backing.ts";

export type { LoopOptions } from "./loop-backing.ts";

/** Zeroes are written in pieces of this many bytes where the file system has no faster way. */
const ZEROES_BYTES = 1024 * 1024;

export class Loop implements BlockDevice {
  readonly blockSize: number;
  readonly rotational: boolean;
  readonly fua = "native" as const;
  readonly identity: string;
  readonly shared: SharedDevice;
  /** Undefined, like all methods that change data, when the device is read-only. */
  readonly write?: (source: Uint8Array, offset: number, options: WriteOptions) => void | Promise<void>;
  readonly flush?: () => void | Promise<void>;
  readonly trim?: (offset: number, length: number, options: WriteOptions) => void | Promise<void>;
  readonly writeZeroes?: (
    offset: number,
    length: number,
    options: WriteZeroesOptions,
  ) => void | Promise<void>;
  /** Undefined for a block device, which does not report its holes. */
  readonly extents?: (offset: number, length: number) => Extent[];

  readonly #backing: Backing;
  readonly #isOwner: boolean;
  readonly #isDirect: boolean;
  /** The rest of the file may belong to something else. */
  readonly #isPart: boolean;
  readonly #file: libc.AsyncFile;
  #size: number;
  /** After that the file descriptor may refer to another file. */
  #isClosed = false;
  #zeroesMemory: libc.Memory | undefined;
  #zeroes: Uint8Array | undefined;

  /**
   * @param opened by another loop device with the same file and options, which continues to own it.
   * @throws UserError when `path` cannot be served as asked.
   */
  constructor(path: string, options: LoopOptions = {}, opened?: Backing) {
    const backing = opened ?? openBacking(path, options);
    this.#backing = backing;
    this.#isOwner = opened === undefined;
    this.#isDirect = options.direct === true;
    this.#isPart = options.size !== undefined;
    const state: SharedState = { backing, direct: options.direct === true };
    this.shared = { kind: "loop", state };
    this.#file = new libc.AsyncFile(backing.fd, backing.path, { direct: options.direct === true });
    this.identity = `loop:${libc.fileIdentity(backing.fd)}@${backing.start}`;
    this.#size = backing.size;
    this.blockSize = backing.blockSize;
    this.rotational = backing.rotational;
    if (!backing.isBlockDevice) this.extents = this.#extents;
    if (backing.readOnly) return;
    this.write = this.#write;
    this.flush = this.#flush;
    this.writeZeroes = this.#writeZeroes;
    if (backing.canTrim) this.trim = this.#trim;
  }

  /** Whether the file was made by `create`. */
  get created(): boolean {
    return this.#backing.created;
  }

  /** An error message: why requests run one at a time where they could overlap. */
  get ringFailure(): string | undefined {
    return this.#file.ringFailure;
  }

  get size(): number {
    return this.#size;
  }

  /** Takes the file's current size, or `size` bytes: a regular file that is too short is made longer. */
  resize(size: number | undefined): void {
    this.#mustBeOpen();
    const { path, fd, start, isBlockDevice, readOnly } = this.#backing;
    if (size === undefined && this.#isPart)
      throw new UserError(`only a part of ${path} is served: give SIZE to change it`);
    const available = (isBlockDevice ? libc.blockDeviceSize(fd) : fstatSync(fd).size) - start;
    const whole = available - (available % this.blockSize);
    if (size === undefined && whole < this.#size)
      throw new UserError(`${path} has shrunk to ${available} bytes: give SIZE to shrink the device`);
    if (size !== undefined && size > available) {
      if (isBlockDevice)
        throw new UserError(`${path} has ${available} bytes: make it larger first, or give less`);
      if (readOnly)
        throw new UserError(`${path} is served read-only and has ${available} bytes: make it longer first`);
      libc.unwrap(libc.ftruncate(fd, start + size), `${path} cannot be made ${start + size} bytes long`);
    }
    this.#size = size ?? whole;
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    this.#mustBeOpen();
    return this.#file.read(target, this.#backing.start + offset);
  }

  #write(source: Uint8Array, offset: number, options: WriteOptions): void | Promise<void> {
    this.#mustBeOpen();
    const at = this.#backing.start + offset;
    if (!options.fua) return this.#file.write(source, at);
    try {
      return this.#file.write(source, at, true)?.catch(this.#forceFailed);
    } catch (error) {
      return this.#forceFailed(error);
    }
  }

  /**
   * The system reports data that it could not write only once, and then counts it as written. This holds for the page
   * cache; with O_DIRECT the caller still has the data.
   */
  #flush(): void | Promise<void> {
    this.#mustBeOpen();
    this.#mustBeWhole();
    try {
      return this.#file.datasync()?.then(this.#mustBeWhole, this.#flushFailed);
    } catch (error) {
      return this.#flushFailed(error);
    }
  }

  /** A layer may have delayed a request until now. */
  #mustBeOpen(): void {
    if (this.#isClosed) throw new ErrnoError("EIO", `${this.#backing.path} is closed`);
  }

  /** The failure may have been reported to another thread, or to another flush in flight. */
  readonly #mustBeWhole = (): void => {
    if (!this.hasLost) return;
    throw new RepeatedError("EIO", `a flush of ${this.#backing.path} has failed, and none succeeds any more`);
  };

  readonly #flushFailed = (error: unknown): never => {
    if (this.#isDirect || !(error instanceof ErrnoError)) throw error;
    Atomics.store(this.#backing.lost, 0, 1);
    throw new ErrnoError(
      error.errno,
      `${error.message}: what was written since the last flush may be lost, and no flush succeeds any more; check the disk, then attach the device again`,
      { cause: error },
    );
  };

  /** The failure may concern this write, or an earlier one to which it was not reported. */
  readonly #forceFailed = (error: unknown): never => {
    const isLoss = error instanceof ErrnoError && error.errno === errno.EIO && !this.#isDirect;
    if (isLoss) Atomics.store(this.#backing.lost, 0, 1);
    throw error;
  };

  #trim(offset: number, length: number, options: WriteOptions): void | Promise<void> {
    this.#mustBeOpen();
    const { fd, start, isBlockDevice } = this.#backing;
    const discard = isBlockDevice ? libc.discardBlocks : libc.punchHole;
    this.#check(discard(fd, start + offset, length), "trim");
    return options.fua ? this.#flush() : undefined;
  }

  #writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void | Promise<void> {
    this.#mustBeOpen();
    const { fd, start, isBlockDevice } = this.#backing;
    const at = start + offset;
    let result: number = -errno.EOPNOTSUPP;
    if (options.mayTrim) result = libc.punchHole(fd, at, length);
    if (result === -errno.EOPNOTSUPP) {
      result = isBlockDevice ? libc.zeroBlocks(fd, at, length) : libc.zeroRange(fd, at, length);
    }
    if (result === -errno.EOPNOTSUPP) return this.#writeZeroBytes(offset, length, options);
    this.#check(result, "write zeroes");
    return options.fua ? this.#flush() : undefined;
  }

  #writeZeroBytes(offset: number, length: number, options: WriteOptions): void | Promise<void> {
    this.#zeroesMemory ??= new libc.Memory(ZEROES_BYTES);
    this.#zeroes ??= this.#zeroesMemory.bytes();
    const zeroes = this.#zeroes;
    const from = (done: number): void | Promise<void> => {
      for (let at = done; at < length; at += ZEROES_BYTES) {
        const piece = zeroes.subarray(0, Math.min(ZEROES_BYTES, length - at));
        const written = this.#write(piece, offset + at, { fua: options.fua });
        if (written !== undefined) return written.then(() => from(at + ZEROES_BYTES));
      }
    };
    return from(0);
  }

  /** One extent: the data or the hole at `offset`. A block with some data counts as data. */
  #extents(offset: number, length: number): Extent[] {
    this.#mustBeOpen();
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

  /** Whether the system may have lost what was written: then no flush succeeds any more. */
  get hasLost(): boolean {
    return Atomics.load(this.#backing.lost, 0) !== 0;
  }

  /** The descriptor that holds the file's lock, for the process that serves the file next. */
  get claim(): number {
    return this.#backing.claim;
  }

  close(): void | Promise<void> {
    if (this.#isClosed) return undefined;
    this.#isClosed = true;
    const closing = this.#file.close();
    if (closing === undefined) return this.#closeFile();
    return closing.then(() => this.#closeFile());
  }

  #closeFile(): void {
    this.#zeroesMemory?.close();
    const { fd, claim } = this.#backing;
    if (!this.#isOwner) return;
    libc.close(fd);
    if (claim !== fd) libc.close(claim);
  }

  #check(result: number, what: string): void {
    if (result < 0) throw this.#failure(result, what);
  }

  #failure(result: number, what: string): ErrnoError {
    return new ErrnoError(-result, `${what} of ${this.#backing.path}: ${libc.errorText(-result)}`);
  }
}

/** What another thread needs to serve the same file. */
interface SharedState {
  readonly backing: Backing;
  readonly direct: boolean;
}

function isSharedState(state: unknown): state is SharedState {
  return typeof state === "object" && state !== null && "backing" in state && "direct" in state;
}

/** The same loop device on another thread, from its `shared.state`. Close it before the first one. */
export function openShared(state: unknown): Loop {
  if (!isSharedState(state)) throw new TypeError("not the state of a loop device");
  return new Loop(state.backing.path, { direct: state.direct }, state.backing);
}

function hole(length: number): Extent {
  return { length, hole: true, zero: true };
}
