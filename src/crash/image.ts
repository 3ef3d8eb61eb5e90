/** A file that holds one state after another, for one checker. Only the differences are written. */
import { rmSync, statSync, utimesSync } from "node:fs";
import { ErrnoError } from "../errors.ts";
import { errorText, unwrap } from "../libc/errno.ts";
import * as file from "../libc/file.ts";
import { SECTOR } from "../record/format.ts";
import { errno } from "../uapi/errno.ts";
import { O_CREAT, O_EXCL, O_RDWR } from "../uapi/fcntl.ts";
import type { Contents } from "./contents.ts";
import { dataRuns } from "./data-runs.ts";
import type { Difference, Disk } from "./disk.ts";
import { noRoom } from "./directory.ts";
import { united } from "./ranges.ts";

/** The modification time set on the file, in seconds: a write by a checker changes it. */
const UNTOUCHED = 1;
/** The maximum length of one write, in sectors. */
const RUN_MAX = 512;
const COPY_BYTES = 2 ** 20;

/** Bytes compared at once after a checker has written to the image. */
const PIECE_BYTES = 2 ** 16;
/** The mode with which a checker finds the file. */
const MODE = 0o600;
/** The unit of holes, in bytes. */
const BLOCK = 4096;

export class Image {
  #fd = -1;
  /** A copy that no checker knows of, made once a checker has written to the image. */
  #clean = -1;
  #inode = 0;
  /** Sectors that may differ from the disk. */
  readonly #stale = new Set<number>();
  readonly #run = new Uint8Array(new ArrayBuffer(RUN_MAX * SECTOR));

  /**
   * @param size in bytes.
   * @param keepsClean whether to always have a second file, {@link clean}.
   */
  constructor(
    readonly path: string,
    readonly size: number,
    readonly contents: Contents,
    readonly keepsClean = false,
  ) {}

  /** A descriptor of the copy without a checker's changes, valid until the next state. */
  get clean(): number {
    return this.#clean;
  }

  /** Notes that a sector of the disk has another value. */
  outdate(sector: number): void {
    this.#stale.add(sector);
  }

  /** Writes a state, and undoes what a checker changed. @throws UserError if space runs out. */
  load(disk: Disk, difference: Difference): void {
    this.#needingRoom(() => {
      const stats = statSync(this.path, { throwIfNoEntry: false });
      const isOurs = stats?.ino === this.#inode && (stats.mode & 0o777) === MODE;
      if (this.#fd < 0 || stats === undefined || !isOurs) this.#makeAnew(disk);
      else if (stats.mtimeMs !== UNTOUCHED * 1000 || stats.size !== this.size) this.#restore(disk);
      if (this.keepsClean && this.#clean < 0) this.#makeClean(disk);
      for (const sector of difference.keys()) this.#stale.add(sector);
      this.#write(Float64Array.from(this.#stale).toSorted(), disk, difference);
    });
    this.#stale.clear();
    for (const sector of difference.keys()) this.#stale.add(sector);
    utimesSync(this.path, UNTOUCHED, UNTOUCHED);
  }

  /** The next state goes to a new file, because a write through a mapping on tmpfs does not change the time. */
  discard(): void {
    if (this.#fd >= 0) file.close(this.#fd);
    this.#fd = -1;
  }

  close(): void {
    this.discard();
    if (this.#clean >= 0) file.close(this.#clean);
    this.#clean = -1;
  }

  #makeAnew(disk: Disk): void {
    this.discard();
    this.#fd = this.#make(this.path, disk);
    this.#inode = statSync(this.path).ino;
  }

  /** Makes a file from the base, and marks every sector that was ever changed as stale. */
  #make(path: string, disk: Disk): number {
    rmSync(path, { recursive: true, force: true });
    const fd = unwrap(file.open(path, O_RDWR | O_CREAT | O_EXCL, MODE), "open");
    unwrap(file.ftruncate(fd, this.size), "ftruncate");
    if (this.contents.base !== undefined) copyData(this.contents.base, fd);
    for (const sector of disk.sectors) this.#stale.add(sector);
    return fd;
  }

  #restore(disk: Disk): void {
    unwrap(file.ftruncate(this.#fd, this.size), "ftruncate");
    if (this.#clean >= 0) return copyChanged(this.#clean, this.#fd, this.size);
    this.#makeClean(disk);
    this.#makeAnew(disk);
  }

  #makeClean(disk: Disk): void {
    const path = `${this.path}.clean`;
    this.#clean = this.#make(path, disk);
    rmSync(path);
  }

  /** @param sectors sorted. */
  #write(sectors: Float64Array, disk: Disk, difference: Difference): void {
    let length = 0;
    let isZero = false;
    for (const [index, sector] of sectors.entries()) {
      const value = difference.get(sector) ?? disk.at(sector);
      const isHole = this.contents.isZero(sector, value);
      if (length > 0 && isHole !== isZero) length = this.#writeRun(sector, length, isZero);
      isZero = isHole;
      this.#run.set(this.contents.read(sector, value), length * SECTOR);
      length += 1;
      if (sectors[index + 1] !== sector + 1 || length === RUN_MAX)
        length = this.#writeRun(sector + 1, length, isZero);
    }
  }

  /** @param end of the run, in sectors. @returns 0, the length with which the next run begins. */
  #writeRun(end: number, length: number, isZero: boolean): 0 {
    const run = this.#run.subarray(0, length * SECTOR);
    const offset = end * SECTOR - run.length;
    for (const fd of [this.#fd, this.#clean])
      if (fd >= 0 && !(isZero && punched(fd, offset, run.length))) writeAll(fd, run, offset);
    return 0;
  }

  #needingRoom(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error;
      throw noRoom(this.path, errorText(error.errno), error);
    }
  }
}

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  const written = unwrap(file.pwrite(fd, bytes, offset), "pwrite");
  if (written < bytes.length) throw new ErrnoError(errno.ENOSPC);
}

/** Tries to make the range a hole, which costs nothing to compare and to copy. Returns whether that succeeded. */
function punched(fd: number, offset: number, length: number): boolean {
  return length >= BLOCK && file.punchHole(fd, offset, length) === 0;
}

const pieces = [PIECE_BYTES, PIECE_BYTES].map((length) => new Uint8Array(new ArrayBuffer(length)));
const ZEROES = new Uint8Array(new ArrayBuffer(BLOCK));

/** Makes a file equal to another one of the same size, wherever either has data. @throws ErrnoError */
function copyChanged(from: number, to: number, size: number): void {
  const [wanted = ZEROES, found = ZEROES] = pieces;
  // Reading a few bytes more is cheaper than another call for the neighbouring range.
  const places = [...dataRuns(from), ...dataRuns(to)].map(({ first, end }) => ({
    first: first - (first % PIECE_BYTES),
    end: Math.min(size, Math.ceil(end / PIECE_BYTES) * PIECE_BYTES),
  }));
  for (const { first, end } of united(places)) {
    for (let at = first; at < end; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, end - at);
      const [one, other] = [wanted.subarray(0, length), found.subarray(0, length)];
      unwrap(file.pread(from, one, at), "pread");
      unwrap(file.pread(to, other, at), "pread");
      if (Buffer.compare(one, other) !== 0) copyBlocks(one, other, to, at);
    }
  }
}

/** Writes the blocks of `wanted` that differ in `found`. */
function copyBlocks(wanted: Uint8Array, found: Uint8Array, to: number, at: number): void {
  for (let start = 0; start < wanted.length; start += BLOCK) {
    const block = wanted.subarray(start, start + BLOCK);
    if (Buffer.compare(block, found.subarray(start, start + BLOCK)) === 0) continue;
    const isZero = Buffer.compare(block, ZEROES) === 0;
    if (!(isZero && punched(to, at + start, block.length))) writeAll(to, block, at + start);
  }
}

/** Copies one file, except its holes, to another one that is all holes. @throws ErrnoError */
function copyData(from: number, to: number): void {
  const buffer = new Uint8Array(new ArrayBuffer(COPY_BYTES));
  for (const { first, end } of dataRuns(from)) {
    for (let at = first; at < end;) {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
      const read = unwrap(file.pread(from, piece, at), "pread");
      if (read === 0) return;
      writeAll(to, piece.subarray(0, read), at);
      at += read;
    }
  }
}
