/** A file that takes on one state after another, for one checker. Only differences are written. */
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

/** The modification time that the file is given, in seconds. A write changes it to the present. */
const UNTOUCHED = 1;
/** The longest run that is written at once, in sectors. */
const RUN_MAX = 512;
const COPY_BYTES = 2 ** 20;

/** What is compared at once, in bytes, when a checker has written to the image. */
const PIECE_BYTES = 2 ** 16;
/** As a checker finds it. */
const MODE = 0o600;
/** What is a hole or not, in bytes. */
const BLOCK = 4096;

export class Image {
  #fd = -1;
  /** The same, of which no checker knows; there is one once a checker has written to the image. */
  #clean = -1;
  #inode = 0;
  /** Sectors that may not be as the disk has them. */
  readonly #stale = new Set<number>();
  readonly #run = new Uint8Array(new ArrayBuffer(RUN_MAX * SECTOR));

  /**
   * @param size bytes.
   * @param keepsClean whether there is always a second file, {@link clean}.
   */
  constructor(
    readonly path: string,
    readonly size: number,
    readonly contents: Contents,
    readonly keepsClean = false,
  ) {}

  /** A descriptor of the same, as it was before a checker has written to it: until the next state. */
  get clean(): number {
    return this.#clean;
  }

  /** The disk has another value in a sector. */
  outdate(sector: number): void {
    this.#stale.add(sector);
  }

  /** What a checker has done to it is undone. @throws UserError where there is no room for it. */
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

  /** Writes the next state to a new file, because a write through a mapping on tmpfs leaves no sign. */
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

  /** A file that has all but what is stale, which is all that was ever changed. */
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

  /** @param sectors in order. */
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

  /** @param end of the run, in sectors. @returns the length of the next one. */
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

/** Whether it is a hole now, which is compared and copied at no cost. */
function punched(fd: number, offset: number, length: number): boolean {
  return length >= BLOCK && file.punchHole(fd, offset, length) === 0;
}

const pieces = [PIECE_BYTES, PIECE_BYTES].map((length) => new Uint8Array(new ArrayBuffer(length)));
const ZEROES = new Uint8Array(new ArrayBuffer(BLOCK));

/** Makes a file as another one of the same size is, where one of them has data. @throws ErrnoError */
function copyChanged(from: number, to: number, size: number): void {
  const [wanted = ZEROES, found = ZEROES] = pieces;
  // A few bytes more are better than another call for what lies beside them.
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

/** Writes those blocks of `wanted` that are not so in `found`. */
function copyBlocks(wanted: Uint8Array, found: Uint8Array, to: number, at: number): void {
  for (let start = 0; start < wanted.length; start += BLOCK) {
    const block = wanted.subarray(start, start + BLOCK);
    if (Buffer.compare(block, found.subarray(start, start + BLOCK)) === 0) continue;
    const isZero = Buffer.compare(block, ZEROES) === 0;
    if (!(isZero && punched(to, at + start, block.length))) writeAll(to, block, at + start);
  }
}

/** All but the holes of one file to another, which is all holes. @throws ErrnoError */
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
