/** Where a copy-on-write layer keeps what was written, and the simplest such place: memory. */
import { ErrnoError, UserError } from "../errors.ts";
import { Memory } from "../libc/memory.ts";
import { type GuardState, MemoryGuard } from "../libc/memory-guard.ts";
import { BlockMap, OVERLAY_BLOCK } from "./block-map.ts";

/** Storage as large as the device, and a map of the blocks in it that count. Offsets and lengths are bytes. */
export interface Overlay {
  readonly map: BlockMap;
  /** To be called before all else. Absent where it is open from the start. @throws UserError */
  open?(): void;
  /**
   * Refuses another device below than the one before, by what that holds. Absent where none was.
   * @param identity of the device, if it has one: see BlockDevice.
   * @throws UserError
   */
  checkBase?(fingerprint: Uint8Array, identity?: string): void;
  /** The blocks from `first` to `end` - 1 count from now on. */
  own(first: number, end: number): void;
  read(target: Uint8Array, offset: number): void;
  write(source: Uint8Array, offset: number): void;
  /** The range reads as zeroes and gives its space back. */
  discard(offset: number, length: number): void;
  /** The range reads as zeroes and has its space. */
  zero(offset: number, length: number): void;
  /** Absent where nothing outlives the process. */
  flush?(): void;
  /** Where it outlives this process: see BlockDevice. */
  readonly identity?: string;
  /** What another thread needs to go on with it, while no other thread does. */
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

/** An overlay in files in memory, as another thread of its process needs it: see overlay-memfd.ts. */
export interface MemfdState {
  /** Of the device, in bytes. */
  readonly size: number;
  readonly blocksFile: number;
  readonly blocksAddress: number;
  readonly mapAddress: number;
  readonly guard: GuardState;
}

/** What an overlay in memory consists of. */
export interface MemoryParts {
  readonly map: BlockMap;
  /** The blocks, its own from then on. */
  readonly memory: Memory;
  /** That of another thread with the same memory. */
  readonly guard?: GuardState | undefined;
}

/** Memory that is allocated as it is written. */
export class MemoryOverlay implements Overlay {
  readonly map: BlockMap;
  readonly guardState: GuardState;
  readonly #memory: Memory;
  readonly #guard: MemoryGuard;

  /** @throws UserError when there is no room for `size` bytes. */
  constructor(size: number, { map, memory, guard }: MemoryParts = allocate(size)) {
    this.map = map;
    this.#memory = memory;
    // With huge pages a block would take 2 MiB. A kernel without them refuses, which is as good.
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

  /** @throws ErrnoError ENOSPC before memory is used up. */
  write(source: Uint8Array, offset: number): void {
    const refused = this.#guard.admit(offset, source.length);
    if (refused !== 0) throw new ErrnoError(refused, this.#guard.cause);
    this.#memory.write(source, offset);
  }

  discard(offset: number, length: number): void {
    this.#memory.discard(offset, length);
    this.#guard.givenBack();
  }

  /** Memory that was not set aside beforehand is not lost by giving it back. */
  zero(offset: number, length: number): void {
    this.discard(offset, length);
  }

  close(): void {
    this.#memory.close();
  }
}

/** @throws UserError when there is no room. */
function allocate(size: number): MemoryParts {
  const blocks = blocksOf(size);
  return { map: new BlockMap(blocks), memory: reserve(size, () => new Memory(blocks * OVERLAY_BLOCK)) };
}

/** Makes memory for an overlay of `size` bytes. @throws UserError when there is no room. */
export function reserve<T>(size: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new UserError(`no address space for an overlay of ${size} bytes: keep it in a file, file=PATH`, {
      cause: error,
    });
  }
}
