/**
 * A RAM disk: sparse anonymous memory, given pages as it is written, and giving them back when it is trimmed.
 */
import {
  type BlockDevice,
  errno,
  ErrnoError,
  type Extent,
  libc,
  type MemoryWindow,
  type SharedDevice,
  UserError,
  type WriteZeroesOptions,
} from "tsbuse";
import { MemoryGuard } from "./memory-guard.ts";

export interface RamdiskOptions {
  /** Allocate all of the memory at once, so that no later write can fail for want of it. */
  readonly populate?: boolean;
  /** Ask for transparent huge pages: faster, and memory comes and goes by 2 MiB. */
  readonly hugePages?: boolean;
  /** Gets a line when writes begin to fail for want of memory, and when they no longer do. */
  readonly log?: (line: string) => void;
}

/** The smallest and the largest RAM disk, in bytes: 4 KiB and 1 TiB. */
export const RAMDISK_SIZE_MIN = 4096;
export const RAMDISK_SIZE_MAX = 2 ** 40;

/** The most that one question about extents looks at, in bytes: a quarter of a million pages. */
const EXTENTS_LOOK_BYTES = 2 ** 30;
const HUGE_PAGE_BYTES = 2 * 2 ** 20;

export class Ramdisk implements BlockDevice {
  readonly size: number;
  readonly memory: MemoryWindow;
  readonly shared: SharedDevice;
  readonly #memory: libc.Memory;
  readonly #populated: boolean;
  readonly #guard = new MemoryGuard();
  /** The least that a byte written may take. */
  readonly #pageBytes: number;
  readonly #log: (line: string) => void;
  #refusing = false;

  /**
   * @param size bytes, from 4 KiB to 1 TiB; whole blocks.
   * @param memory of another RAM disk of the same size and options, whose bytes this one then shares.
   * @throws UserError when the memory is not to be had.
   */
  constructor(size: number, options: RamdiskOptions = {}, memory?: libc.Memory) {
    if (size < RAMDISK_SIZE_MIN || size > RAMDISK_SIZE_MAX) {
      throw new UserError(`a RAM disk of ${size} bytes cannot be: give a size from 4K to 1T`);
    }
    this.size = size;
    this.#populated = options.populate === true;
    this.#memory = memory ?? allocate(size, options);
    this.#pageBytes = options.hugePages === true ? HUGE_PAGE_BYTES : 1;
    this.#log = options.log ?? (() => undefined);
    const admit = (offset: number, length: number): number => this.#admit(offset, length);
    this.memory = this.#populated
      ? { address: this.#memory.address }
      : { address: this.#memory.address, admit };
    const state: SharedState = {
      size,
      populated: this.#populated,
      hugePages: options.hugePages === true,
      address: this.#memory.address,
    };
    this.shared = { kind: "ramdisk", state };
  }

  read(target: Uint8Array, offset: number): void {
    this.#memory.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void {
    const refused = this.memory.admit?.(offset, source.byteLength) ?? 0;
    if (refused !== 0) throw new ErrnoError(refused, "the system's memory is used up");
    this.#memory.write(source, offset);
  }

  trim(offset: number, length: number): void {
    this.#memory.discard(offset, length);
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    // Memory that was never set aside is not lost by giving it back: only a populated disk has a promise to keep.
    if (options.mayTrim || !this.#populated) this.#memory.discard(offset, length);
    else this.#memory.zero(offset, length);
  }

  /** Memory that was never written, or was given back, is a hole. */
  extents(offset: number, length: number): Extent[] {
    const looked = Math.min(length, EXTENTS_LOOK_BYTES);
    const runs = this.#memory.runs(offset, looked) ?? [{ length: looked, allocated: true }];
    return runs.map((run) => ({ length: run.length, hole: !run.allocated, zero: !run.allocated }));
  }

  close(): void {
    this.#memory.close();
  }

  /** What has its memory already can be written however little is left. */
  #admit(offset: number, length: number): number {
    if (this.#guard.allows(Math.max(length, this.#pageBytes))) {
      if (this.#refusing) this.#refuse(false, "there is memory again: writes succeed");
      return 0;
    }
    if (this.#memory.runs(offset, length)?.every((run) => run.allocated) === true) return 0;
    if (!this.#refusing)
      this.#refuse(true, "the system's memory is used up: writes fail until some is free, or is trimmed");
    return errno.ENOSPC;
  }

  #refuse(on: boolean, line: string): void {
    this.#refusing = on;
    this.#log(line);
  }
}

/** What another thread needs to serve the same memory. */
interface SharedState {
  readonly size: number;
  readonly populated: boolean;
  readonly hugePages: boolean;
  readonly address: number;
}

function isSharedState(state: unknown): state is SharedState {
  return typeof state === "object" && state !== null && "address" in state && "populated" in state;
}

/** The RAM disk whose `shared.state` this is, on another thread. It must be closed before that one. */
export function openShared(state: unknown, log: (line: string) => void): Ramdisk {
  if (!isSharedState(state)) throw new TypeError("not the state of a RAM disk");
  const { size, populated, hugePages, address } = state;
  return new Ramdisk(size, { populate: populated, hugePages, log }, new libc.Memory(size, address));
}

function allocate(size: number, options: RamdiskOptions): libc.Memory {
  const memory = map(size);
  const hugePages = options.hugePages === true;
  if (memory.preferHugePages(hugePages) < 0 && hugePages) {
    memory.close();
    throw new UserError("this kernel has no transparent huge pages: leave out --huge-pages");
  }
  if (options.populate === true) {
    const result = memory.populate();
    if (result < 0) {
      memory.close();
      const reason = libc.errorText(-result);
      throw new UserError(
        `cannot allocate ${size} bytes at once (${reason}): give a smaller size, or leave out --populate`,
      );
    }
  }
  return memory;
}

function map(size: number): libc.Memory {
  try {
    return new libc.Memory(size);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`cannot reserve ${size} bytes of address space (${reason}): see "ulimit -v"`, {
      cause: error,
    });
  }
}
