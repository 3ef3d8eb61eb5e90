/** Anonymous memory outside the JavaScript heap, of any size, addressed by plain numbers. */
import { toArrayBuffer } from "bun:ffi";
import {
  MADV_DONTDUMP,
  MADV_DONTNEED,
  MADV_HUGEPAGE,
  MADV_NOHUGEPAGE,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from "../uapi/mman.ts";
import { UserError } from "../errors.ts";
import { errno } from "../uapi/errno.ts";
import { pointer } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { close, pread, seekData, seekHole } from "./file.ts";
import { libc } from "./library.ts";
import { createMemoryFile } from "./memfd.ts";
import { PAGE, type PageRun, pageRuns } from "./pagemap.ts";
import { Residence, type ResidenceState } from "./residence.ts";

/** A page of zeroes to compare with. */
const ZEROES = new Uint8Array(new ArrayBuffer(PAGE));

/** The maximum length of an ArrayBuffer. */
const VIEW_MAX = 2 ** 32;

/**
 * An area of zeroed memory. The kernel gives it pages as they are written; pages given back read as zeroes again.
 * Offsets and lengths are bytes within the area; they are not checked.
 */
export class Memory {
  /** The address of byte 0, aligned to a page. */
  readonly address: number;

  /** The file in memory behind the area, which other processes can share; -1 for none. */
  readonly #file: number;
  /** Which parts of a file can be read without taking memory; undefined without a file. */
  readonly #residence: Residence | undefined;
  readonly #isOwner: boolean;

  /**
   * @param address of an area that another object made and still owns; absent for a new one.
   * @param file see {@link memoryFile}: the area maps it, and closes it in the end. Reading a part of the mapping
   *   allocates it, as writing does.
   * @param residence the state of another thread for the same area, if that is a file.
   * @throws ErrnoError ENOMEM when the address space or the limit on it (RLIMIT_AS) does not allow `size`.
   */
  constructor(
    readonly size: number,
    address?: number,
    file = -1,
    residence?: ResidenceState,
  ) {
    this.#file = file;
    this.#isOwner = address === undefined;
    this.address = address ?? map(size, file);
    this.#residence = file < 0 ? undefined : new Residence(this.address, size, residence);
    // A core dump is for debugging the process, not for copying a disk.
    if (this.#isOwner) unwrap(this.#advise(0, size, MADV_DONTDUMP), "madvise(MADV_DONTDUMP)");
  }

  /** Whether it is a file in memory. */
  get isFile(): boolean {
    return this.#file >= 0;
  }

  /** The state for other threads that use the area; undefined without a file. */
  get residence(): ResidenceState | undefined {
    return this.#residence?.state;
  }

  /** Copies from the area into all of `target`. Allocates nothing in the area. @throws ErrnoError */
  read(target: Uint8Array, offset: number): void {
    // pread(2) does not allocate missing pages, but takes four times as long as copying allocated ones.
    if (this.#residence?.isWhole(offset, target.byteLength) === false)
      return void unwrap(pread(this.#file, target, offset), "read of memory");
    libc.memcpy(target, pointer(this.address + offset), target.byteLength);
  }

  /** Copies all of `source` into the area. */
  write(source: Uint8Array, offset: number): void {
    libc.memcpy(pointer(this.address + offset), source, source.byteLength);
  }

  /** Writes zeroes; the memory stays allocated. */
  zero(offset: number, length: number): void {
    libc.memset(pointer(this.address + offset), 0, length);
  }

  /** Makes the range read as zeroes and gives its whole pages back to the system. */
  discard(offset: number, length: number): void {
    const end = offset + length;
    const firstPage = Math.ceil(offset / PAGE) * PAGE;
    const lastPage = Math.floor(end / PAGE) * PAGE;
    if (firstPage >= lastPage) {
      this.#clear(offset, Math.min(end, firstPage) - offset);
      this.#clear(Math.min(end, firstPage), end - Math.min(end, firstPage));
      return;
    }
    this.#clear(offset, firstPage - offset);
    this.#residence?.forget(firstPage, lastPage - firstPage);
    const advice = this.#file < 0 ? MADV_DONTNEED : MADV_REMOVE;
    unwrap(this.#advise(firstPage, lastPage - firstPage, advice), "madvise(MADV_DONTNEED)");
    this.#clear(lastPage, end - lastPage);
  }

  /** Allocates the pages of the range now. Returns 0 or -errno: -EINVAL before Linux 5.14. */
  populate(offset = 0, length: number = this.size): number {
    const first = offset - (offset % PAGE);
    return this.#advise(first, offset + length - first, MADV_POPULATE_WRITE);
  }

  /**
   * Enables or disables transparent huge pages: with them a byte written takes 2 MiB, and more if pages are larger than
   * 4 KiB. Returns 0 or -errno: -EINVAL if the kernel does not support them.
   */
  preferHugePages(on: boolean): number {
    return this.#advise(0, this.size, on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }

  /** Which parts of the range have been written, and which read as zeroes; undefined if unknown. */
  runs(offset: number, length: number): PageRun[] | undefined {
    // The page tables of this process do not show what another process has written.
    return this.#file < 0 ? pageRuns(this.address + offset, length) : fileRuns(this.#file, offset, length);
  }

  /** The area, up to 4 GiB, as bytes that JavaScript can touch. Valid until {@link close}. */
  bytes(): Uint8Array {
    if (this.size > VIEW_MAX) throw new RangeError(`${this.size} bytes do not fit one view`);
    return new Uint8Array(toArrayBuffer(pointer(this.address), 0, this.size));
  }

  /** Releases the area, if this object owns it. Do not touch the area or any view of it afterwards. */
  close(): void {
    if (!this.#isOwner) return;
    unwrap(negativeErrno(libc.munmap(this.address, this.size)), "munmap");
    if (this.#file >= 0) libc.close(this.#file);
  }

  /** Zeroes part of a page, unless it is zero already: reading memory that was never written does not allocate it. */
  #clear(offset: number, length: number): void {
    if (length <= 0 || this.#isHole(offset, length)) return;
    if (libc.memcmp(pointer(this.address + offset), ZEROES, length) !== 0) this.zero(offset, length);
  }

  /** Whether the range of the file is a hole. */
  #isHole(offset: number, length: number): boolean {
    if (!this.isFile) return false;
    const data = seekData(this.#file, offset);
    return data < 0 || data >= offset + length;
  }

  #advise(offset: number, length: number, advice: number): number {
    return negativeErrno(libc.madvise(this.address + offset, length, advice));
  }
}

/** Returns the address. @throws ErrnoError ENOMEM */
function map(size: number, file: number): number {
  const flags = (file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE;
  const result = negativeErrno(libc.mmap(0, size, PROT_READ | PROT_WRITE, flags, file, 0));
  return unwrap(result, `mmap of ${size} bytes`);
}

/**
 * Makes a file in memory of `size` bytes, all unallocated: see {@link Memory}. Returns its descriptor, which can be
 * passed to another process. @throws ErrnoError, UserError if it exceeds the maximum size of files (RLIMIT_FSIZE).
 */
export function memoryFile(size: number): number {
  const fd = createMemoryFile(false);
  const result = negativeErrno(libc.ftruncate(fd, size));
  if (result < 0) close(fd);
  if (result === -errno.EFBIG)
    throw new UserError(`the limit on the size of files is below ${size} bytes: see "ulimit -f"`);
  unwrap(result, `ftruncate to ${size} bytes`);
  return fd;
}

/** The data and holes of a file, in the form of {@link pageRuns}. */
function fileRuns(fd: number, offset: number, length: number): PageRun[] {
  const runs: PageRun[] = [];
  const end = offset + length;
  for (let at = offset; at < end;) {
    const data = seekData(fd, at);
    const allocated = data === at;
    const next = allocated ? seekHole(fd, at) : data;
    const stop = next < 0 ? end : Math.min(next, end);
    runs.push({ length: stop - at, allocated });
    at = stop;
  }
  return runs;
}

/** memcpy(3) between two addresses. The ranges must not overlap. */
export function copy(target: number, source: number, length: number): void {
  libc.memcpy(pointer(target), pointer(source), length);
}

/**
 * Gives the whole pages of a range back to the system. Their contents are lost. Locked pages stay as they are, because
 * they were locked in order to keep them (see resident.ts).
 */
export function discardPages(address: number, length: number): void {
  const first = Math.ceil(address / PAGE) * PAGE;
  const end = Math.floor((address + length) / PAGE) * PAGE;
  if (first >= end) return;
  const result = negativeErrno(libc.madvise(first, end - first, MADV_DONTNEED));
  if (result !== -errno.EINVAL) unwrap(result, "madvise");
}
