/** A RAM disk: sparse anonymous memory. Pages are allocated when they are written, and freed when they are trimmed. */
import {
  type BlockDevice,
  ErrnoError,
  type Extent,
  libc,
  type MemoryWindow,
  type SharedDevice,
  UserError,
  type WriteZeroesOptions,
} from "tsbuse";
import { type ChunkLayout, statesBytes, WrittenChunks } from "./written-chunks.ts";

export interface RamdiskOptions {
  /** Allocate all memory at once, so that no later write can run out of it. */
  readonly populate?: boolean;
  /** Ask for transparent huge pages: faster, and memory comes and goes by 2 MiB, or more on some kernels for Arm. */
  readonly hugePages?: boolean;
  /**
   * Use memory that another process can share, see {@link RamdiskFiles}. Each request is copied once more, and huge
   * pages follow the system's setting for files in memory.
   */
  readonly handover?: boolean;
  /** Receives a line when writes begin to fail because memory is short, and when they succeed again. */
  readonly log?: (line: string) => void;
}

/** The files in memory behind a RAM disk: its bytes, and which of them were written. Descriptors of this process. */
export interface RamdiskFiles {
  readonly bytes: number;
  /** Absent on a populated disk. */
  readonly chunks: number | undefined;
}

/** The smallest and the largest RAM disk, in bytes: 4 KiB and 1 TiB. */
export const RAMDISK_SIZE_MIN = 4096;
export const RAMDISK_SIZE_MAX = 2 ** 40;

/** The most written memory that a query for extents examines, in bytes: other requests wait meanwhile. */
const EXTENTS_LOOK_BYTES = 64 * 2 ** 20;
/** The most places that such a query examines. */
const EXTENTS_PLACES = 32;
/** The unit of freeing memory on a disk with huge pages. */
export const HUGE_CHUNK_BYTES = libc.HUGE_PAGE;
/** The unit of freeing memory otherwise: the largest page size of any kernel. */
const CHUNK_BYTES = 64 * 1024;

export class Ramdisk implements BlockDevice {
  readonly size: number;
  readonly memory: MemoryWindow;
  /** Undefined unless the disk can be handed over. Open until the disk is closed. */
  readonly files: RamdiskFiles | undefined;
  readonly shared: SharedDevice;
  readonly #memory: libc.Memory;
  /** Absent on a populated disk: no part of it is known to be empty. */
  readonly #chunks: WrittenChunks | undefined;
  readonly #guard: libc.MemoryGuard;
  /** After that the memory may belong to something else. */
  #isClosed = false;

  /**
   * @param size in bytes, from 4 KiB to 1 TiB; whole blocks.
   * @param parts of another RAM disk of the same size and options, to share its bytes.
   * @throws UserError if the memory is unavailable.
   */
  constructor(size: number, options: RamdiskOptions = {}, parts: Parts = allocate(size, options)) {
    this.size = size;
    this.#memory = parts.memory;
    this.#chunks = parts.chunks;
    this.#guard = new libc.MemoryGuard(parts.memory, {
      ...(options.hugePages === true && { granule: HUGE_CHUNK_BYTES }),
      log: options.log,
      state: parts.guard,
    });
    const admit = (offset: number, length: number): number => this.#admit(offset, length);
    // The chunk may have been freed meanwhile.
    const landed = (offset: number, length: number): void => this.#chunks?.noteWrite(offset, offset + length);
    this.files = parts.files;
    this.memory =
      this.#chunks === undefined
        ? { address: this.#memory.address }
        : { address: this.#memory.address, admit, landed };
    const state: SharedState = {
      size,
      populated: this.#chunks === undefined,
      hugePages: options.hugePages === true,
      address: this.#memory.address,
      chunksAddress: this.#chunks?.address ?? 0,
      guard: this.#guard.state,
      files: parts.files,
      residence: this.#memory.residence,
    };
    this.shared = { kind: "ramdisk", state };
  }

  /** The unit of freeing memory, in bytes; 0 on a populated disk. */
  get chunkBytes(): number {
    return this.#chunks?.chunkBytes ?? 0;
  }

  read(target: Uint8Array, offset: number): void {
    this.#mustBeOpen();
    this.#memory.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.#mustBeOpen();
    const refused = this.#chunks === undefined ? 0 : this.#admit(offset, source.byteLength);
    if (refused !== 0) throw new ErrnoError(refused, this.#guard.cause);
    this.#memory.write(source, offset);
  }

  /** Skips what was never written, or was freed. */
  trim(offset: number, length: number): void {
    this.#mustBeOpen();
    const chunks = this.#chunks;
    if (chunks === undefined) return this.#memory.discard(offset, length);
    const end = offset + length;
    let at = chunks.firstWritten(offset, end);
    while (at < end) {
      const stop = chunks.firstNotWritten(at, end);
      this.#giveBack(chunks, at, stop);
      at = chunks.firstWritten(stop, end);
    }
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): void {
    this.#mustBeOpen();
    const chunks = this.#chunks;
    if (chunks !== undefined) this.#zeroTouched(chunks, offset, offset + length);
    // A sparse disk may free memory in any case. Only a populated one has promised to keep it.
    else if (options.mayTrim) this.#memory.discard(offset, length);
    else this.#memory.zero(offset, length);
  }

  /** Memory that was never written, or was freed, is a hole. */
  extents(offset: number, length: number): Extent[] {
    this.#mustBeOpen();
    const extents: Extent[] = [];
    const end = offset + length;
    let left = EXTENTS_LOOK_BYTES;
    let at = offset;
    for (let places = 0; at < end && left > 0 && places < EXTENTS_PLACES; places += 1) {
      const touched = this.#chunks?.firstTouched(at, end) ?? at;
      if (touched > at) extents.push({ length: touched - at, hole: true, zero: true });
      if (touched === end) break;
      const untouched = this.#chunks?.firstUntouched(touched, end) ?? end;
      at = Math.min(untouched, touched + left);
      this.#look(extents, touched, at - touched);
      left -= at - touched;
    }
    return extents;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#memory.close();
    this.#chunks?.close();
  }

  /** A layer may have delayed a request until now. */
  #mustBeOpen(): void {
    if (this.#isClosed) throw new ErrnoError("EIO", "the RAM disk is closed");
  }

  /** Zeroes what has ever been written, by freeing it. */
  #zeroTouched(chunks: WrittenChunks, offset: number, end: number): void {
    let at = chunks.firstTouched(offset, end);
    while (at < end) {
      const stop = chunks.firstUntouched(at, end);
      this.#giveBack(chunks, at, stop);
      at = chunks.firstTouched(stop, end);
    }
  }

  #giveBack(chunks: WrittenChunks, offset: number, end: number): void {
    chunks.noteGivenBack(offset, end);
    this.#memory.discard(offset, end - offset);
    this.#guard.givenBack();
  }

  /** Asks the kernel which pages have memory. */
  #look(extents: Extent[], offset: number, length: number): void {
    const runs = this.#memory.runs(offset, length) ?? [{ length, allocated: true }];
    for (const run of runs) extents.push({ length: run.length, hole: !run.allocated, zero: !run.allocated });
  }

  #admit(offset: number, length: number): number {
    const refused = this.#guard.admit(offset, length);
    if (refused === 0) this.#chunks?.noteWrite(offset, offset + length);
    return refused;
  }
}

/**
 * The same disk with nothing but its methods: reading a part of the file that was never written allocates memory, and
 * only {@link Ramdisk.read} avoids that.
 */
export function byMethods(disk: Ramdisk): BlockDevice {
  return {
    size: disk.size,
    shared: disk.shared,
    read: (target, offset) => disk.read(target, offset),
    write: (source, offset) => disk.write(source, offset),
    trim: (offset, length) => disk.trim(offset, length),
    writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
    extents: (offset, length) => disk.extents(offset, length),
    close: () => disk.close(),
  };
}

/** What another thread needs to serve the same memory. */
interface SharedState {
  readonly size: number;
  readonly populated: boolean;
  readonly hugePages: boolean;
  readonly address: number;
  /** Of the chunks' states; 0 on a populated disk, which has none. */
  readonly chunksAddress: number;
  readonly guard: libc.GuardState;
  readonly files: RamdiskFiles | undefined;
  readonly residence: libc.ResidenceState | undefined;
}

function isSharedState(state: unknown): state is SharedState {
  return typeof state === "object" && state !== null && "address" in state && "populated" in state;
}

/** The same RAM disk on another thread, from its `shared.state`. Close it before the first one. */
export function openShared(state: unknown, log: (line: string) => void): BlockDevice {
  if (!isSharedState(state)) throw new TypeError("not the state of a RAM disk");
  const { size, populated, hugePages, address, chunksAddress, guard, files, residence } = state;
  const memory = new libc.Memory(size, address, files?.bytes, residence);
  const chunks = populated
    ? undefined
    : new WrittenChunks(layoutOf(size, hugePages, address, files), chunksAddress, files?.chunks);
  const parts = { memory, chunks, guard, files };
  const disk = new Ramdisk(size, { populate: populated, hugePages, log }, parts);
  return files === undefined ? disk : byMethods(disk);
}

/** The parts of a RAM disk. */
interface Parts {
  readonly memory: libc.Memory;
  readonly chunks: WrittenChunks | undefined;
  /** Absent for a guard of its own. */
  readonly guard?: libc.GuardState;
  readonly files?: RamdiskFiles | undefined;
}

/** The RAM disk of another process, of the same size and options, from its files. Owns them from now on. */
export function adoptRamdisk(size: number, options: RamdiskOptions, files: RamdiskFiles): Ramdisk {
  const memory = reserve(size, () => new libc.Memory(size, undefined, files.bytes));
  const layout = layoutOf(size, options.hugePages === true, memory.address, files);
  const chunks = files.chunks === undefined ? undefined : new WrittenChunks(layout, undefined, files.chunks);
  return new Ramdisk(size, options, { memory, chunks, files });
}

function allocate(size: number, options: RamdiskOptions): Parts {
  if (size < RAMDISK_SIZE_MIN || size > RAMDISK_SIZE_MAX)
    throw new UserError(`invalid size ${size} of a RAM disk: give a size from 4K to 1T`);
  const bytes = options.handover === true ? libc.memoryFile(size) : undefined;
  const memory = reserve(size, () => new libc.Memory(size, undefined, bytes));
  try {
    prepare(memory, options);
    const layout = chunkLayout(size, options.hugePages === true, bytes === undefined ? memory.address : 0);
    const isSparse = options.populate !== true;
    const file = bytes === undefined || !isSparse ? undefined : libc.memoryFile(statesBytes(layout));
    const chunks = isSparse ? reserve(size, () => new WrittenChunks(layout, undefined, file)) : undefined;
    return { memory, chunks, ...(bytes !== undefined && { files: { bytes, chunks: file } }) };
  } catch (error) {
    memory.close();
    throw error;
  }
}

/** Chunks of a file lie by their place in the file, wherever that is mapped. */
function layoutOf(
  size: number,
  hugePages: boolean,
  address: number,
  files: RamdiskFiles | undefined,
): ChunkLayout {
  return chunkLayout(size, hugePages, files === undefined ? address : 0);
}

/** Huge pages are aligned in memory, not to the start of the disk. */
function chunkLayout(size: number, hugePages: boolean, address: number): ChunkLayout {
  const chunkBytes = hugePages ? HUGE_CHUNK_BYTES : CHUNK_BYTES;
  return { size, chunkBytes, lead: hugePages ? address % HUGE_CHUNK_BYTES : 0 };
}

/** @throws UserError */
function prepare(memory: libc.Memory, options: RamdiskOptions): void {
  const hugePages = options.hugePages === true;
  if (memory.preferHugePages(hugePages) < 0 && hugePages)
    throw new UserError("this kernel has no transparent huge pages: leave out --huge-pages");
  const result = options.populate === true ? memory.populate() : 0;
  if (result < 0) {
    const reason = libc.errorText(-result);
    throw new UserError(
      `cannot allocate ${memory.size} bytes at once (${reason}): give a smaller size, or leave out --populate`,
    );
  }
}

/** @throws UserError when there is no memory for what `make` makes. */
function reserve<T>(size: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`cannot reserve ${size} bytes of address space (${reason}): see "ulimit -v"`, {
      cause: error,
    });
  }
}
