/**
 * What a block device is: the interface that every device implements and every transport serves.
 */

/** How a write or a trim is to be done. The object is reused from call to call: read it, do not keep it. */
export interface WriteOptions {
  /**
   * Force unit access: the data must be on stable storage when the method returns. Only ever true for a device
   * that says `fua: "native"`; for others the dispatcher calls `flush` after the write.
   */
  readonly fua: boolean;
}

/** How zeroes are to be written. Reused from call to call, as {@link WriteOptions} is. */
export interface WriteZeroesOptions extends WriteOptions {
  /** False: the range must stay allocated, so that writing to it later cannot fail for want of space. */
  readonly mayTrim: boolean;
}

/**
 * Bytes, in blocks. Offsets and lengths are in bytes, are whole blocks, and lie within the device: the dispatcher
 * has checked them before a method is called. A method does all that it is asked or throws; an
 * {@link ErrnoError} is the errno that the peer gets, anything else thrown is logged and becomes EIO. Either way the
 * device goes on serving.
 *
 * A method that is absent is a capability that is not offered: without `write` the device is read-only.
 *
 * A method that returns nothing is done when it returns. One that returns a promise, which is anything with a method
 * `then`, is done when the promise settles, and others are called meanwhile, but for ranges that overlap where either
 * is changed. Methods may do now the one and now the other. Whatever a promise waits for, a timer, a socket, a
 * file, is looked after meanwhile.
 */
export interface BlockDevice {
  /** Bytes; a multiple of the block size, and at most Number.MAX_SAFE_INTEGER. Changed by {@link resize} alone. */
  readonly size: number;
  /** The smallest unit of I/O in bytes: a power of two from 512 to 4096. Default 512. */
  readonly blockSize?: number;
  /** The device moves slowly from one place to another, as a disk with heads does. Default false. */
  readonly rotational?: boolean;
  /** `native`: `write`, `trim` and `writeZeroes` honour `options.fua`. Absent: FUA is a write and then a flush. */
  readonly fua?: "native";
  /**
   * Which data this is, for a node that outlives its server (`--recover`): the same text from every process that serves
   * the same data, and from no other, such as the file or the address where it lies. What was written and answered must
   * be there for the next process, though this one is killed. 1 to 1000 printable characters. Absent: the data is lost
   * with the process, and no other one takes over.
   */
  readonly identity?: string;
  /** For a device that is nothing but memory; see {@link MemoryWindow}. Most devices leave it out. */
  readonly memory?: MemoryWindow;
  /** For a device whose bytes any thread can reach; see {@link SharedDevice}. Most devices leave it out. */
  readonly shared?: SharedDevice;

  /**
   * Called once, before the first request, and before there is a node or a server. When it fails, the device is not
   * used, and is closed: a UserError says why in one line.
   */
  prepare?(): void | Promise<void>;
  /** Fills all of `target` with the bytes at `offset`. `target` is lent until the call is done. */
  read(target: Uint8Array, offset: number): void | Promise<void>;
  /** Stores all of `source` at `offset`. `source` is lent until the call is done. */
  write?(source: Uint8Array, offset: number, options: WriteOptions): void | Promise<void>;
  /**
   * Done once every write that was done before the call is on stable storage. Absent: a write is as soon as it is
   * done.
   */
  flush?(): void | Promise<void>;
  /** The range is not needed any more; what it reads as afterwards is up to the device. `length` is up to 4 GiB. */
  trim?(offset: number, length: number, options: WriteOptions): void | Promise<void>;
  /** The range reads as zeroes afterwards. `length` is up to 4 GiB. */
  writeZeroes?(offset: number, length: number, options: WriteZeroesOptions): void | Promise<void>;
  /**
   * Says which parts of the range hold data and which are holes, for NBD clients that copy or map a disk. The extents
   * follow one another from `offset` on, without gaps: at least one, as many as the device cares to find. What they
   * do not reach is asked for again, and what goes beyond `offset + length` is cut off; `length` is up to 4 GiB.
   * The answer is a hint that must be safe: a range is `zero` only if a read of it brings nothing but zeroes.
   *
   * @example
   *     extents(offset, length) {
   *       return this.isEmpty(offset) ? [{ length, hole: true, zero: true }] : [{ length, hole: false, zero: false }];
   *     }
   */
  extents?(offset: number, length: number): readonly Extent[] | Promise<readonly Extent[]>;
  /**
   * For a device whose module is loaded anew while it is in use (`tsbuse run --watch`): called once, before the first
   * request, on the device that takes over. `previous` has answered every change and has been flushed; only a
   * read that hangs, or what `--request-timeout` has given up, may still be under way. It is closed once this method is
   * done and nothing is. When it throws, `previous` goes on serving. What is handed over must be public: `previous` was
   * made by the earlier version of the module, whose classes are others, though of the same names.
   */
  takeOver?(previous: BlockDevice): void | Promise<void>;
  /**
   * Changes `size`, while requests go on (`tsbuse resize`): to so many bytes, in whole blocks, or where it is
   * undefined to what the device has become by itself, as a file that has grown. When it is done, `size` is the new
   * one. Bytes that are new must be there then; nobody asks for those that are to go any more. Absent: the size is
   * fixed.
   */
  resize?(size: number | undefined): void | Promise<void>;
  /** Called once, after the last request and the last flush. */
  close?(): void | Promise<void>;
}

/** A run of bytes of one kind. */
export interface Extent {
  /** Bytes, whole blocks, at least one. */
  readonly length: number;
  /** The range takes no space: writing to it may fail for want of it. */
  readonly hole: boolean;
  /** The range reads as zeroes. */
  readonly zero: boolean;
}

/**
 * A device whose every byte lies in memory, byte `offset` at `address + offset`. Given one, a transport moves bytes
 * between socket and memory with no copy in between, and does not call `read` and `write` at all; they must do the
 * same all the same. The memory must stay in place until `close`. Writes of different clients that overlap are not kept
 * apart: each of the bytes is of one of them.
 */
export interface MemoryWindow {
  readonly address: number;
  /**
   * Called before each write into the memory, of `length` bytes at `offset`. Returns 0, or the positive errno that
   * the write is answered with. It is on the way of every write: it must be quick. Absent: nothing is refused.
   */
  admit?(offset: number, length: number): number;
  /**
   * Called after each write into the memory that was admitted, once its bytes are there, or as many as will ever come.
   * That may be long after {@link admit}, with other requests in between: a trim of the same bytes, perhaps.
   */
  landed?(offset: number, length: number): void;
}

/**
 * A device whose state lies outside of JavaScript, in memory or in a file: what another thread needs to make a device
 * of the same bytes. It serves such a device with several threads at once; all others are served by one. What is
 * shared stays in place until the `close` of the device that shares it. Requests of different threads are not kept
 * apart, even if they overlap. For the devices that come with tsbuse.
 */
export interface SharedDevice {
  /** Which device it is. */
  readonly kind: "ramdisk" | "loop" | "cow";
  /** One thread at a time, whichever it is. Default: any number at once. */
  readonly byOneThread?: boolean;
  /** What its module's function `openShared` takes: plain data. */
  readonly state: unknown;
}

/** Bytes in a block, where the device does not say. */
export const DEFAULT_BLOCK_SIZE = 512;
export const MIN_BLOCK_SIZE = 512;
export const MAX_BLOCK_SIZE = 4096;
