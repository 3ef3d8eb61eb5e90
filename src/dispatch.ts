/**
 * The one gate between a transport and a device. It turns a bad request into an errno, leaves out what the device
 * cannot do, makes FUA out of write and flush for devices that lack it, and turns what a device throws into an errno.
 * Nothing else checks ranges, and nothing here allocates unless something failed.
 */
import assert from "node:assert";
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  MAX_BLOCK_SIZE,
  MIN_BLOCK_SIZE,
  type WriteOptions,
  type WriteZeroesOptions,
} from "./device.ts";
import { ErrnoError, errnoOf, messageOf, UserError } from "./errors.ts";
import { errno, errnoName } from "./uapi/errno.ts";

/** What a device can do, once the options of an attachment are applied to it. */
export interface Capabilities {
  readonly write: boolean;
  readonly flush: boolean;
  readonly fua: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  readonly rotational: boolean;
}

export interface DispatchOptions {
  /** Bytes; at least the device's own. */
  readonly blockSize?: number | undefined;
  readonly readOnly?: boolean | undefined;
  /** Gets a line for a failure of the device that is worth a look: what a method threw. */
  readonly log?: ((line: string) => void) | undefined;
}

const PLAIN: WriteOptions = Object.freeze({ fua: false });
const FUA: WriteOptions = Object.freeze({ fua: true });
const ZERO_HOLE: WriteZeroesOptions = Object.freeze({ fua: false, mayTrim: true });
const ZERO_NO_HOLE: WriteZeroesOptions = Object.freeze({ fua: false, mayTrim: false });
const ZERO_HOLE_FUA: WriteZeroesOptions = Object.freeze({ fua: true, mayTrim: true });
const ZERO_NO_HOLE_FUA: WriteZeroesOptions = Object.freeze({ fua: true, mayTrim: false });

/** Every method returns 0 or a positive errno. Offsets and lengths are bytes. */
export class Dispatch {
  readonly size: number;
  readonly blockSize: number;
  readonly capabilities: Capabilities;
  readonly #device: BlockDevice;
  readonly #nativeFua: boolean;
  readonly #log: (line: string) => void;

  /** @throws UserError when the device's shape, or the block size asked for, cannot be. */
  constructor(device: BlockDevice, options: DispatchOptions = {}) {
    this.#device = device;
    this.#log = options.log ?? (() => undefined);
    this.#nativeFua = device.fua === "native";
    this.size = device.size;
    this.blockSize = chooseBlockSize(device, options.blockSize);
    this.capabilities = findCapabilities(device, options.readOnly === true);
  }

  /** The address of byte 0 where the device is memory, else -1: see MemoryWindow. */
  get memoryAddress(): number {
    return this.#device.memory?.address ?? -1;
  }

  /** 0 when a read of this range may go ahead, as for each of the checks below. */
  checkRead(offset: number, length: number): number {
    return this.#inRange(offset, length) ? 0 : errno.EINVAL;
  }

  checkWrite(offset: number, length: number, fua: boolean): number {
    if (!this.capabilities.write) return errno.EPERM;
    if (fua && !this.capabilities.fua) return errno.EINVAL;
    return this.#inRange(offset, length) ? 0 : this.#outOfRange(offset, length);
  }

  /** The range must have passed {@link checkRead}. */
  read(target: Uint8Array, offset: number): number {
    try {
      return this.#settled(this.#device.read(target, offset));
    } catch (error) {
      return this.#failed("read", error);
    }
  }

  /** The range must have passed {@link checkWrite}. */
  write(source: Uint8Array, offset: number, fua: boolean): number {
    const device = this.#device;
    if (device.write === undefined) return errno.EPERM;
    try {
      const status = this.#settled(device.write(source, offset, fua && this.#nativeFua ? FUA : PLAIN));
      return status === 0 ? this.completeWrite(fua) : status;
    } catch (error) {
      return this.#failed("write", error);
    }
  }

  /** What is left to do when the bytes of a write are in their place: the flush of an emulated FUA. */
  completeWrite(fua: boolean): number {
    return fua && !this.#nativeFua ? this.flush() : 0;
  }

  flush(): number {
    if (this.#device.flush === undefined) return 0;
    try {
      return this.#settled(this.#device.flush());
    } catch (error) {
      return this.#failed("flush", error);
    }
  }

  trim(offset: number, length: number, fua: boolean): number {
    const status = this.checkWrite(offset, length, fua);
    if (status !== 0) return status;
    if (this.#device.trim === undefined) return errno.EINVAL;
    try {
      const options = fua && this.#nativeFua ? FUA : PLAIN;
      const settled = this.#settled(this.#device.trim(offset, length, options));
      return settled === 0 ? this.completeWrite(fua) : settled;
    } catch (error) {
      return this.#failed("trim", error);
    }
  }

  writeZeroes(offset: number, length: number, fua: boolean, noHole: boolean): number {
    const status = this.checkWrite(offset, length, fua);
    if (status !== 0) return status;
    if (this.#device.writeZeroes === undefined) return errno.EINVAL;
    try {
      const options = zeroesOptions(fua && this.#nativeFua, noHole);
      const settled = this.#settled(this.#device.writeZeroes(offset, length, options));
      return settled === 0 ? this.completeWrite(fua) : settled;
    } catch (error) {
      return this.#failed("writeZeroes", error);
    }
  }

  /** Whole blocks, at least one, within the device. */
  #inRange(offset: number, length: number): boolean {
    return (
      length > 0 &&
      offset <= this.size - length &&
      offset % this.blockSize === 0 &&
      length % this.blockSize === 0
    );
  }

  /** The protocol's error for a write that is not in range: beyond the end there is no space. */
  #outOfRange(offset: number, length: number): number {
    return offset > this.size - length ? errno.ENOSPC : errno.EINVAL;
  }

  #settled(returned: unknown): number {
    if (returned === undefined) return 0;
    this.#log("the device returned a value (a promise?) from a method that is synchronous: answered with EIO");
    return errno.EIO;
  }

  #failed(method: string, thrown: unknown): number {
    const number = errnoOf(thrown);
    const name = thrown instanceof ErrnoError ? "" : ` (${errnoName(number)})`;
    this.#log(`${method} failed${name}: ${messageOf(thrown)}`);
    return number;
  }
}

function zeroesOptions(fua: boolean, noHole: boolean): WriteZeroesOptions {
  if (fua) return noHole ? ZERO_NO_HOLE_FUA : ZERO_HOLE_FUA;
  return noHole ? ZERO_NO_HOLE : ZERO_HOLE;
}

function findCapabilities(device: BlockDevice, readOnly: boolean): Capabilities {
  const write = !readOnly && device.write !== undefined;
  const flush = device.flush !== undefined;
  return {
    write,
    flush,
    // Linux sends FUA only to a device that has a cache to force its way through.
    fua: write && flush,
    trim: write && device.trim !== undefined,
    writeZeroes: write && device.writeZeroes !== undefined,
    rotational: device.rotational === true,
  };
}

/** The device's block size or a larger one that was asked for. @throws UserError */
function chooseBlockSize(device: BlockDevice, wanted: number | undefined): number {
  const own = device.blockSize ?? DEFAULT_BLOCK_SIZE;
  assert(isBlockSize(own), `a device of block size ${own}: must be a power of two from 512 to 4096`);
  const chosen = wanted ?? own;
  if (!isBlockSize(chosen)) {
    throw new UserError(`block size ${chosen} cannot be: give 512, 1024, 2048 or 4096`);
  }
  if (chosen < own) {
    throw new UserError(`block size ${chosen} is less than the device's own: give ${own} or more`);
  }
  assert(Number.isSafeInteger(device.size), `a device of size ${device.size}: must be a whole number of bytes`);
  if (device.size <= 0 || device.size % chosen !== 0) {
    const rounded = Math.max(chosen, Math.floor(device.size / chosen) * chosen);
    throw new UserError(
      `size ${device.size} is not a whole number of blocks of ${chosen} bytes: give ${rounded}, or another block size`,
    );
  }
  return chosen;
}

function isBlockSize(bytes: number): boolean {
  return bytes >= MIN_BLOCK_SIZE && bytes <= MAX_BLOCK_SIZE && Number.isInteger(Math.log2(bytes));
}
