/**
 * The one gate between a transport and a device. It turns a bad request into an errno, leaves out what the device
 * cannot do, makes FUA out of write and flush for devices that lack it, and turns what a device throws into an errno.
 * Nothing else checks ranges, and nothing here allocates unless something failed.
 */
import assert from "node:assert";
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  type Extent,
  MAX_BLOCK_SIZE,
  MIN_BLOCK_SIZE,
  type SharedDevice,
  type WriteOptions,
  type WriteZeroesOptions,
} from "./device.ts";
import { errnoKind, errnoOf, messageOf, UserError } from "./errors.ts";
import { identityOf } from "./identity.ts";
import { errno, errnoName } from "./uapi/errno.ts";
import { adopt, adoptDone } from "./values/promise.ts";

/** What a device can do, once the options of an attachment are applied to it. */
export interface Capabilities {
  readonly write: boolean;
  readonly flush: boolean;
  readonly fua: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  readonly rotational: boolean;
  readonly extents: boolean;
}

export interface DispatchOptions {
  /** Bytes; at least the device's own. */
  readonly blockSize?: number | undefined;
  readonly readOnly?: boolean | undefined;
  /** {@link Dispatch.shownSize} of the same device on another thread. Default: the device's size. */
  readonly shownSize?: Float64Array<SharedArrayBuffer> | undefined;
  /** The path of the module that the device comes from: part of its identity. */
  readonly origin?: string | undefined;
  /** Gets a line for each failure of the device that an administrator should see, such as what a method threw. */
  readonly log?: ((line: string) => void) | undefined;
}

const PLAIN: WriteOptions = Object.freeze({ fua: false });
const FUA: WriteOptions = Object.freeze({ fua: true });
const ZERO_HOLE: WriteZeroesOptions = Object.freeze({ fua: false, mayTrim: true });
const ZERO_NO_HOLE: WriteZeroesOptions = Object.freeze({ fua: false, mayTrim: false });
const ZERO_HOLE_FUA: WriteZeroesOptions = Object.freeze({ fua: true, mayTrim: true });
const ZERO_NO_HOLE_FUA: WriteZeroesOptions = Object.freeze({ fua: true, mayTrim: false });

/** 0 or a positive errno; of an asynchronous device, a promise of it, which is never rejected. */
export type Status = number | Promise<number>;

/** What {@link Dispatch.extents} answers: extents, or a positive errno. */
export type ExtentsStatus = readonly Extent[] | number;

/** The most extents in one answer. */
const EXTENTS_MAX = 4096;

/** Offsets and lengths are bytes. */
export class Dispatch {
  /** {@link size}, in memory that all threads that serve the device share. */
  readonly shownSize: Float64Array<SharedArrayBuffer>;
  readonly blockSize: number;
  readonly capabilities: Capabilities;
  /** Identifies the device, for a node that outlives its server: see identity.ts. */
  readonly identity: string | undefined;
  readonly #device: BlockDevice;
  readonly #nativeFua: boolean;
  /** Bytes in the device's own blocks, which {@link blockSize} is a multiple of. */
  readonly #ownBlockSize: number;
  /** The bits of an offset within a block: the remainder of a large number would be a call of fmod(3). */
  readonly #blockMask: number;
  readonly #log: (line: string) => void;

  /** @throws UserError if the device's size or block size, or the block size asked for, is invalid. */
  constructor(device: BlockDevice, options: DispatchOptions = {}) {
    this.#device = device;
    this.#log = options.log ?? (() => undefined);
    this.#nativeFua = device.fua === "native";
    this.shownSize = options.shownSize ?? new Float64Array(new SharedArrayBuffer(8)).fill(device.size);
    this.#ownBlockSize = device.blockSize ?? DEFAULT_BLOCK_SIZE;
    this.blockSize = chooseBlockSize(device, options.blockSize);
    this.#blockMask = this.blockSize - 1;
    this.capabilities = findCapabilities(device, options.readOnly === true);
    const { blockSize, capabilities } = this;
    this.identity = identityOf(device, { origin: options.origin, blockSize, write: capabilities.write });
  }

  /** The size that users know, at most the device's own. No request goes beyond it. */
  get size(): number {
    return this.shownSize[0] ?? 0;
  }

  /** Does not affect requests in flight. */
  set size(bytes: number) {
    this.shownSize[0] = bytes;
  }

  get canResize(): boolean {
    return this.#device.resize !== undefined;
  }

  /**
   * Makes the device change its size. The size that users know does not change.
   * @param size bytes, in whole blocks; undefined for the size that the device has now by itself.
   * @returns the device's new size, in whole blocks.
   * @throws whatever the device throws, and Error if the size is not the one asked for.
   */
  async resizeDevice(size: number | undefined): Promise<number> {
    const device = this.#device;
    await adoptDone(device.resize?.(size));
    const has = device.size;
    if (!Number.isSafeInteger(has) || has < this.blockSize || (size !== undefined && has !== size))
      throw new Error(`the device was to have ${size ?? "a number of"} bytes, and says that it has ${has}`);
    return has - (has % this.blockSize);
  }

  /** The address of byte 0 where the device is memory, else -1: see MemoryWindow. */
  get memoryAddress(): number {
    return this.#device.memory?.address ?? -1;
  }

  /** What another thread needs to serve the same device; undefined if it cannot: see SharedDevice. */
  get shared(): SharedDevice | undefined {
    return this.#device.shared;
  }

  /** 0 if a read of this range may go ahead, else an errno; likewise for the checks below. */
  checkRead(offset: number, length: number): number {
    return this.#inRange(offset, length) ? 0 : errno.EINVAL;
  }

  /** For a device that is memory, also checks that it has room. */
  checkWrite(offset: number, length: number, fua: boolean): number {
    const status = this.#checkChange(offset, length, fua);
    if (status !== 0) return status;
    try {
      return this.#device.memory?.admit?.(offset, length) ?? 0;
    } catch (error) {
      return this.#failed("memory.admit", error);
    }
  }

  #checkChange(offset: number, length: number, fua: boolean): number {
    if (!this.capabilities.write) return errno.EPERM;
    if (fua && !this.capabilities.fua) return errno.EINVAL;
    return this.#inRange(offset, length) ? 0 : this.#outOfRange(offset, length);
  }

  /** The range must have passed {@link checkRead}. */
  read(target: Uint8Array, offset: number): Status {
    try {
      return this.#settle("read", this.#device.read(target, offset));
    } catch (error) {
      return this.#failed("read", error);
    }
  }

  /** The range must have passed {@link checkWrite}. */
  write(source: Uint8Array, offset: number, fua: boolean): Status {
    const device = this.#device;
    if (device.write === undefined) return errno.EPERM;
    try {
      const returned = device.write(source, offset, fua && this.#nativeFua ? FUA : PLAIN);
      return this.#thenFlush(this.#settle("write", returned), fua);
    } catch (error) {
      return this.#failed("write", error);
    }
  }

  /** What is left to do when the bytes of a write are in the device's memory: the flush of an emulated FUA. */
  completeWrite(offset: number, length: number, fua: boolean): Status {
    return this.#thenFlush(this.landed(offset, length), fua);
  }

  /** Tells a device that is memory that the bytes of a write have arrived, or as many as will ever come. */
  landed(offset: number, length: number): number {
    try {
      this.#device.memory?.landed?.(offset, length);
      return 0;
    } catch (error) {
      return this.#failed("memory.landed", error);
    }
  }

  flush(): Status {
    if (this.#device.flush === undefined) return 0;
    try {
      return this.#settle("flush", this.#device.flush());
    } catch (error) {
      return this.#failed("flush", error);
    }
  }

  trim(offset: number, length: number, fua: boolean): Status {
    const status = this.#checkChange(offset, length, fua);
    if (status !== 0) return status;
    if (this.#device.trim === undefined) return errno.EINVAL;
    try {
      const options = fua && this.#nativeFua ? FUA : PLAIN;
      return this.#thenFlush(this.#settle("trim", this.#device.trim(offset, length, options)), fua);
    } catch (error) {
      return this.#failed("trim", error);
    }
  }

  writeZeroes(offset: number, length: number, fua: boolean, noHole: boolean): Status {
    const status = this.#checkChange(offset, length, fua);
    if (status !== 0) return status;
    if (this.#device.writeZeroes === undefined) return errno.EINVAL;
    try {
      const options = zeroesOptions(fua && this.#nativeFua, noHole);
      return this.#thenFlush(
        this.#settle("writeZeroes", this.#device.writeZeroes(offset, length, options)),
        fua,
      );
    } catch (error) {
      return this.#failed("writeZeroes", error);
    }
  }

  /** Extents from `offset` on: at least one, whole blocks, none beyond the range, neighbours of one kind made one. */
  extents(offset: number, length: number): ExtentsStatus | Promise<ExtentsStatus> {
    if (!this.#inRange(offset, length)) return errno.EINVAL;
    if (this.#device.extents === undefined) return errno.EINVAL;
    try {
      const returned = adopt(this.#device.extents(offset, length));
      const tidy = (extents: readonly Extent[]): readonly Extent[] =>
        tidyExtents(extents, length, this.#ownBlockSize, this.blockSize);
      if (!(returned instanceof Promise)) return tidy(returned);
      return returned.then(tidy).catch((error: unknown) => this.#failed("extents", error));
    } catch (error) {
      return this.#failed("extents", error);
    }
  }

  /** Whole blocks, at least one, within the device. Of an operand of any size `|` takes the low 32 bits. */
  #inRange(offset: number, length: number): boolean {
    return length > 0 && offset <= this.size - length && ((offset | length) & this.#blockMask) === 0;
  }

  /** The errno for a write out of range, as the protocol has it: ENOSPC beyond the end. */
  #outOfRange(offset: number, length: number): number {
    return offset > this.size - length ? errno.ENOSPC : errno.EINVAL;
  }

  /** Status of a method from what it returned: nothing, or a promise of it. @throws Error for anything else. */
  #settle(method: string, returned: void | Promise<void>): Status {
    const done = adoptDone(returned);
    return done === undefined ? 0 : done.then(success, (error: unknown) => this.#failed(method, error));
  }

  /** The flush of an emulated FUA, once the write has succeeded. */
  #thenFlush(status: Status, fua: boolean): Status {
    if (!fua || this.#nativeFua) return status;
    if (typeof status !== "number") return status.then((settled) => (settled === 0 ? this.flush() : settled));
    return status === 0 ? this.flush() : status;
  }

  #failed(method: string, thrown: unknown): number {
    const number = errnoOf(thrown);
    const kind = errnoKind(thrown);
    if (kind === "repeated") return number;
    const name = kind === "errno" ? "" : ` (${errnoName(number)})`;
    this.#log(`${method} failed${name}: ${messageOf(thrown)}`);
    return number;
  }
}

const success = (): number => 0;

function zeroesOptions(fua: boolean, noHole: boolean): WriteZeroesOptions {
  if (fua) return noHole ? ZERO_NO_HOLE_FUA : ZERO_HOLE_FUA;
  return noHole ? ZERO_NO_HOLE : ZERO_HOLE;
}

/**
 * The extents that a device reported for `length` bytes, in blocks of `blockSize`, which may be larger than its own. A
 * block of several kinds counts as hole or zero only if all of it is. The rest of a last block is asked for again.
 * @throws Error if they break the interface's rules.
 */
function tidyExtents(
  extents: readonly Extent[],
  length: number,
  ownBlockSize: number,
  blockSize: number,
): readonly Extent[] {
  const tidy: Extent[] = [];
  /** Bytes that no extent has covered yet. */
  let left = length;
  /** The block that is covered in part: how many bytes of it, and of what kind. */
  let known = 0;
  let [hole, zero] = [true, true];
  for (const extent of extents) {
    if (left === 0 || tidy.length === EXTENTS_MAX) break;
    if (!(extent.length > 0) || extent.length % ownBlockSize !== 0)
      throw new Error(`an extent of ${extent.length} bytes is not a whole number of blocks`);
    let bytes = Math.min(left - known, extent.length);
    if (known > 0) {
      const part = Math.min(bytes, blockSize - known);
      [hole, zero] = [hole && extent.hole, zero && extent.zero];
      known += part;
      bytes -= part;
      if (known < blockSize) continue;
      addExtent(tidy, blockSize, hole, zero);
      left -= blockSize;
    }
    known = bytes % blockSize;
    if (bytes > known) addExtent(tidy, bytes - known, extent.hole, extent.zero);
    left -= bytes - known;
    [hole, zero] = [extent.hole, extent.zero];
  }
  // Nothing can be said about a block that is covered in part.
  if (tidy.length === 0 && known > 0) addExtent(tidy, blockSize, false, false);
  if (tidy.length === 0) throw new Error("no extents were given, where at least one is expected");
  return tidy;
}

/** Joins it to the last extent if that is of the same kind. */
function addExtent(extents: Extent[], length: number, hole: boolean, zero: boolean): void {
  const last = extents.at(-1);
  const isAlike = last !== undefined && last.hole === hole && last.zero === zero;
  if (isAlike) extents[extents.length - 1] = { length: last.length + length, hole, zero };
  else extents.push({ length, hole, zero });
}

function findCapabilities(device: BlockDevice, readOnly: boolean): Capabilities {
  const write = !readOnly && device.write !== undefined;
  const flush = device.flush !== undefined;
  return {
    write,
    flush,
    // Linux sends FUA only to a device that says it has a cache.
    fua: write && flush,
    trim: write && device.trim !== undefined,
    writeZeroes: write && device.writeZeroes !== undefined,
    rotational: device.rotational === true,
    extents: device.extents !== undefined,
  };
}

/** The device's block size or a larger one that was asked for. @throws UserError */
function chooseBlockSize(device: BlockDevice, wanted: number | undefined): number {
  const own = device.blockSize ?? DEFAULT_BLOCK_SIZE;
  assert(isBlockSize(own), `a device of block size ${own}: must be a power of two from 512 to 4096`);
  const chosen = wanted ?? own;
  if (!isBlockSize(chosen)) {
    throw new UserError(`block size ${chosen} is invalid: give 512, 1024, 2048 or 4096`);
  }
  if (chosen < own) {
    throw new UserError(`block size ${chosen} is less than the device's own: give ${own} or more`);
  }
  assert(
    Number.isSafeInteger(device.size),
    `a device of size ${device.size}: must be a whole number of bytes`,
  );
  if (device.size <= 0 || device.size % chosen !== 0) {
    const rounded = Math.max(chosen, Math.floor(device.size / chosen) * chosen);
    throw new UserError(
      `size ${device.size} is not a whole number of blocks of ${chosen} bytes: give ${rounded}, or another block size`,
    );
  }
  return chosen;
}

export function isBlockSize(bytes: number): boolean {
  return bytes >= MIN_BLOCK_SIZE && bytes <= MAX_BLOCK_SIZE && Number.isInteger(Math.log2(bytes));
}
