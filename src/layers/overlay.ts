/** Where a copy-on-write layer keeps changes, and the simplest such place: memory. */
import { ErrnoError, UserError } from "../errors.ts";
import { Memory } from "../libc/memory.ts";
import { type GuardState, MemoryGuard } from "../libc/memory-guard.ts";
import { BlockMap, OVERLAY_BLOCK } from "./block-map.ts";

/** Storage as large as the device, and a map of its blocks that count. Offsets and lengths are bytes. */
export interface Overlay {
  readonly map: BlockMap;
  /** Call it before any other method. Absent if it is open from the start. @throws UserError */
  open?(): void;
  /**
   * Refuses a device below with other contents than the previous one. Absent if there was none.
   * @param identity of the device, if it has one: see BlockDevice.
   * @throws UserError
   */
  checkBase?(fingerprint: Uint8Array, identity?: string): void;
  /** Makes the blocks from `first` to `end` - 1 count. */
  own(first: number, end: number): void;
  read(target: Uint8Array, offset: number): void;
  write(source: Uint8Array, offset: number): void;
  /** Makes the range read as zeroes, and frees its space. */
  discard(offset: number, length: number): void;
  /** Makes the range read as zeroes, and keeps its space. */
  zero(offset: number, length: number): void;
  /** Absent if nothing outlives the process. */
  flush?(): void;
  /** Present if it outlives this process: see BlockDevice. */
  readonly identity?: string;
  /** What another thread needs to continue it while no other thread uses it. */
  readonly state?: MemfdState;
  close(): void;
}

/** The map of a larger device would take more than 512 MiB. */
const DEVICE_MAX = 2 ** 44;

/** @throws UserError for a device that is too large. */
export function blocksOf(size: number): number {
  if (size > DEVICE_MAX) {
    throw new UserError(`a copy-on-write layer cannot cover ${size} bytes: give a device of at most 16T`);
  }
  return Math.ceil(size / OVERLAY_BLOCK);
}

/** What another thread of this process needs to open an overlay in files in memory: see overlay-memfd.ts. */
export interface MemfdState {
  /** Size of the device, in bytes. */
  readonly size: number;
  readonly blocksFile: number;
  readonly blocksAddress: number;
  readonly mapAddress: number;
  readonly guard: GuardState;
}

/** The parts of an overlay in memory. */
export interface MemoryParts {
  readonly map: BlockMap;
  /** The blocks, which then belong to the overlay. */
  readonly memory: Memory;
  /** The guard state of another thread with the same memory. */
  readonly guard?: GuardState | undefined;
}

/** Memory that is allocated as it is written. */
export class MemoryOverlay implements Overlay {
  readonly map: BlockMap;
  readonly guardState: GuardState;
  readonly #memory: Memory;
  readonly #guard: MemoryGuard;

  /** @throws UserError if the address space has no room for `size` bytes. */
  constructor(size: number, { map, memory, guard }: MemoryParts = allocate(size)) {
    this.map = map;
    this.#memory = memory;
    // With huge pages a block would take 2 MiB. A kernel without them refuses, which has the same effect.
    memory.preferHugePages(false);
    this.#guard = new MemoryGuard(memory, { state: guard });
    this.guardState = this.#guard.state;
  }

  own(first: number, end: number): void {
    this.map.add(first, end);
  }

  read(target: Uint8Array, offset: number): void {
    this.#memory.read(target, offset);
  }

  /** @throws ErrnoError ENOSPC before memory runs out. */
  write(source: Uint8Array, offset: number): void {
    const refused = this.#guard.admit(offset, source.length);
    if (refused !== 0) throw new ErrnoError(refused, this.#guard.cause);
    this.#memory.write(source, offset);
  }

  discard(offset: number, length: number): void {
    this.#memory.discard(offset, length);
    this.#guard.givenBack();
  }

  /** Frees the memory: none is reserved in advance, so there is nothing to keep. */
  zero(offset: number, length: number): void {
    this.discard(offset, length);
  }

  close(): void {
    this.#memory.close();
  }
}

/** @throws UserError if there is no room. */
function allocate(size: number): MemoryParts {
  const blocks = blocksOf(size);
  return { map: new BlockMap(blocks), memory: reserve(size, () => new Memory(blocks * OVERLAY_BLOCK)) };
}

/** Makes memory for an overlay of `size` bytes. @throws UserError if there is no room. */
export function reserve<T>(size: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new UserError(`no address space for an overlay of ${size} bytes: keep it in a file, file=PATH`, {
      cause: error,
    });
  }
}
