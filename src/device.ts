/**
 * What a block device is: the interface that every device implements and every transport serves.
 */

/** How to do a write or a trim. The object is reused from call to call: read it, do not keep it. */
export interface WriteOptions {
  /**
   * Force unit access: the data must be on stable storage when the method returns. Only ever true for a device
   * that says `fua: "native"`; for others the dispatcher calls `flush` after the write.
   */
  readonly fua: boolean;
}

/** How to write zeroes. The object is reused from call to call, as {@link WriteOptions} is. */
export interface WriteZeroesOptions extends WriteOptions {
  /** False: the range must stay allocated, so that a later write to it cannot run out of space. */
  readonly mayTrim: boolean;
}

/**
 * Bytes, in blocks. Offsets and lengths are bytes, in whole blocks within the device: the dispatcher checks them before
 * it calls a method. A method does everything that it is asked, or throws. An {@link ErrnoError} becomes the errno that
 * the peer gets; anything else is logged and becomes EIO. Either way the device keeps serving.
 *
 * A method that is absent is a capability that the device does not offer: without `write` it is read-only.
 *
 * A method that returns nothing is done when it returns. A method that returns a promise (anything with a method
 * `then`) is done when the promise settles. Other calls are made meanwhile, except for a range that overlaps if one of
 * the two changes it. A method may return a promise at one call and nothing at another. The event loop runs while a
 * promise is pending, so it may wait for a timer, a socket or a file.
 */
export interface BlockDevice {
  /** Bytes; a multiple of the block size, and at most Number.MAX_SAFE_INTEGER. Changed by {@link resize} alone. */
  readonly size: number;
  /** The smallest unit of I/O in bytes: a power of two from 512 to 4096. Default 512. */
  readonly blockSize?: number;
  /** The device has slow seeks, as a disk with heads does. Default false. */
  readonly rotational?: boolean;
  /** `native`: `write`, `trim` and `writeZeroes` honour `options.fua`. Absent: FUA is a write and then a flush. */
  readonly fua?: "native";
  /**
   * A name for the data, for a node that outlives its server (`--recover`). Every process that serves the same data
   * gives the same text, and no other process does: the path of a file, for example, or an address. If this process is
   * killed, the next one must find every write that was answered. 1 to 1000 printable characters. Absent: the data is
   * lost with the process, and no other process takes over.
   */
  readonly identity?: string;
  /** For a device that is nothing but memory; see {@link MemoryWindow}. Most devices leave it out. */
  readonly memory?: MemoryWindow;
  /** For a device whose bytes any thread can reach; see {@link SharedDevice}. Most devices leave it out. */
  readonly shared?: SharedDevice;

  /**
   * Called once, before the first request and before there is a node or a server. If it fails, the device is closed
   * without having been used; throw a UserError to say why in one line.
   */
  prepare?(): void | Promise<void>;
  /** Fills all of `target` with the bytes at `offset`. `target` is lent until the call is done. */
  read(target: Uint8Array, offset: number): void | Promise<void>;
  /** Stores all of `source` at `offset`. `source` is lent until the call is done. */
  write?(source: Uint8Array, offset: number, options: WriteOptions): void | Promise<void>;
  /**
   * Done once every write that was done before the call is on stable storage. Absent: a write is on stable storage as
   * soon as it is done.
   */
  flush?(): void | Promise<void>;
  /** The range is no longer needed; what it reads as afterwards is up to the device. `length` is up to 4 GiB. */
  trim?(offset: number, length: number, options: WriteOptions): void | Promise<void>;
  /** The range reads as zeroes afterwards. `length` is up to 4 GiB. */
  writeZeroes?(offset: number, length: number, options: WriteZeroesOptions): void | Promise<void>;
  /**
   * Says which parts of the range hold data and which are holes, for NBD clients that copy or map a disk. The extents
   * follow one another from `offset` on, without gaps: at least one, and as many as the device cares to find. If they
   * end early, the rest is asked for again; what goes beyond `offset + length` is cut off. `length` is up to 4 GiB.
   * The answer is a hint that must be safe: a range is `zero` only if reading it gives nothing but zeroes.
   *
   * @example
   *     extents(offset, length) {
   *       return this.isEmpty(offset) ? [{ length, hole: true, zero: true }] : [{ length, hole: false, zero: false }];
   *     }
   */
  extents?(offset: number, length: number): readonly Extent[] | Promise<readonly Extent[]>;
  /**
   * For a module that is reloaded while its device is in use (`tsbuse run --watch`): called once, before the first
   * request, on the device that takes over. `previous` has answered every change and has been flushed. Only a read
   * that hangs, or a request that `--request-timeout` has given up on, may still be in flight. `previous` is closed
   * once this method is done and nothing is in flight. If it throws, `previous` keeps serving. What is handed over must
   * be public, because `previous` is an instance of the earlier module's class, another one with the same name.
   */
  takeOver?(previous: BlockDevice): void | Promise<void>;
  /**
   * Changes the size while requests go on (`tsbuse resize`): to that many bytes, in whole blocks; or, if undefined, to
   * the size that the device has now by itself, as a file does that has grown. Once it is done, the property `size` is
   * the new one, and new bytes must be there; bytes that are to go are no longer asked for. Absent: the size is fixed.
   */
  resize?(size: number | undefined): void | Promise<void>;
  /** Called once, after the last request and the last flush. */
  close?(): void | Promise<void>;
}

/** A run of bytes of one kind. */
export interface Extent {
  /** Bytes, whole blocks, at least one. */
  readonly length: number;
  /** The range takes no space, so a write to it may run out of space. */
  readonly hole: boolean;
  /** The range reads as zeroes. */
  readonly zero: boolean;
}

/**
 * A device all of whose bytes lie in memory, byte `offset` at `address + offset`. A transport then moves bytes between
 * socket and memory without a copy, and never calls `read` and `write`; they must do the same nevertheless. The memory
 * must stay in place until `close`. Overlapping writes of different clients are not kept apart: each byte comes from
 * one of them.
 */
export interface MemoryWindow {
  readonly address: number;
  /**
   * Called before each write into the memory, of `length` bytes at `offset`. Returns 0, or a positive errno to refuse
   * the write with. Every write waits for it, so it must be quick. Absent: nothing is refused.
   */
  admit?(offset: number, length: number): number;
  /**
   * Called after each admitted write, once its bytes are there, or as many of them as will ever come. That may be long
   * after {@link admit}, with other requests in between: a trim of the same bytes, perhaps.
   */
  landed?(offset: number, length: number): void;
}

/**
 * What another thread needs to make a device of the same bytes, if its state lies outside of JavaScript, in memory or
 * in a file. Several threads can serve such a device at once; any other device is served by one. What is shared stays
 * in place until the `close` of the device that shares it. Requests of different threads are not kept apart, even if
 * they overlap. Only the devices that come with tsbuse use it.
 */
export interface SharedDevice {
  /** Which device it is. */
  readonly kind: "ramdisk" | "loop" | "cow";
  /** One thread at a time, whichever it is. Default: any number at once. */
  readonly byOneThread?: boolean;
  /** What its module's function `openShared` takes: plain data. */
  readonly state: unknown;
}

/** Bytes in a block, unless the device says otherwise. */
export const DEFAULT_BLOCK_SIZE = 512;
export const MIN_BLOCK_SIZE = 512;
export const MAX_BLOCK_SIZE = 4096;
