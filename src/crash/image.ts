/** A file that is made one state after the other, for one checker. Only what differs is written. */
import { type Stats, statSync, unlinkSync, utimesSync } from "node:fs";
import { ErrnoError, UserError } from "../errors.ts";
import { errorText, unwrap } from "../libc/errno.ts";
import * as file from "../libc/file.ts";
import { SECTOR } from "../record/format.ts";
import { errno } from "../uapi/errno.ts";
import { O_CREAT, O_EXCL, O_RDWR } from "../uapi/fcntl.ts";
import type { Contents } from "./contents.ts";
import type { Difference, Disk } from "./disk.ts";

/** When the file is said to have been changed, in seconds: whoever writes to it makes it now. */
const UNTOUCHED = 1;
/** The longest run that is written at once, in sectors. */
const RUN_MAX = 512;
const COPY_BYTES = 2 ** 20;

export class Image {
  #fd = -1;
  #inode = 0;
  /** Sectors that may not be as the disk has them. */
  readonly #stale = new Set<number>();
  readonly #run = new Uint8Array(new ArrayBuffer(RUN_MAX * SECTOR));

  /** @param size bytes. */
  constructor(
    readonly path: string,
    readonly size: number,
    readonly contents: Contents,
  ) {}

  /** The disk has another value in a sector. */
  outdate(sector: number): void {
    this.#stale.add(sector);
  }

  /** What a checker has done to it is undone. @throws UserError where there is no room for it. */
  load(disk: Disk, difference: Difference): void {
    if (!this.#isUntouched()) this.#makeAnew(disk);
    for (const sector of difference.keys()) this.#stale.add(sector);
    this.#write(Float64Array.from(this.#stale).toSorted(), disk, difference);
    this.#stale.clear();
    for (const sector of difference.keys()) this.#stale.add(sector);
    utimesSync(this.path, UNTOUCHED, UNTOUCHED);
  }

  close(): void {
    if (this.#fd >= 0) file.close(this.#fd);
    this.#fd = -1;
  }

  /** Not what is written through a mapping on tmpfs, which tells nobody: a finding is tried again on a new file. */
  #isUntouched(): boolean {
    const stats: Stats | undefined = statSync(this.path, { throwIfNoEntry: false });
    const isOurs = this.#fd >= 0 && stats?.ino === this.#inode && stats.size === this.size;
    return isOurs && stats.mtimeMs === UNTOUCHED * 1000;
  }

  /** The next state is written to a new file. */
  discard(): void {
    this.close();
  }

  #makeAnew(disk: Disk): void {
    this.close();
    if (statSync(this.path, { throwIfNoEntry: false }) !== undefined) unlinkSync(this.path);
    this.#needingRoom(() => {
      this.#fd = unwrap(file.open(this.path, O_RDWR | O_CREAT | O_EXCL, 0o600), "open");
      unwrap(file.ftruncate(this.#fd, this.size), "ftruncate");
      this.#inode = statSync(this.path).ino;
      if (this.contents.base !== undefined) copyData(this.contents.base, this.#fd, this.size);
    });
    for (const sector of disk.sectors) this.#stale.add(sector);
  }

  /** @param sectors in order. */
  #write(sectors: Float64Array, disk: Disk, difference: Difference): void {
    let length = 0;
    for (const [index, sector] of sectors.entries()) {
      const value = difference.get(sector) ?? disk.at(sector);
      const bytes = this.contents.read(sector, value);
      this.#run.set(bytes, length * SECTOR);
      length += 1;
      if (sectors[index + 1] === sector + 1 && length < RUN_MAX) continue;
      const run = this.#run.subarray(0, length * SECTOR);
      const offset = (sector + 1 - length) * SECTOR;
      this.#needingRoom(() => {
        const written = unwrap(file.pwrite(this.#fd, run, offset), "pwrite");
        if (written < run.length) throw new ErrnoError(errno.ENOSPC);
      });
      length = 0;
    }
  }

  #needingRoom(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error;
      throw new UserError(
        `no room for an image of ${this.size} bytes at ${this.path} (${errorText(error.errno)}): set TMPDIR to a directory with more, or give fewer --jobs`,
        { cause: error },
      );
    }
  }
}

/** All but the holes of one file to another, which is all holes. @throws ErrnoError */
export function copyData(from: number, to: number, size: number): void {
  const buffer = new Uint8Array(new ArrayBuffer(COPY_BYTES));
  for (let at = 0; at < size;) {
    const start = file.seekData(from, at);
    if (start === -errno.ENXIO) return;
    const end = Math.min(size, unwrap(file.seekHole(from, unwrap(start, "lseek")), "lseek"));
    for (at = start; at < end;) {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
      const read = unwrap(file.pread(from, piece, at), "pread");
      if (read === 0) return;
      const written = unwrap(file.pwrite(to, piece.subarray(0, read), at), "pwrite");
      if (written < read) throw new ErrnoError(errno.ENOSPC);
      at += read;
    }
  }
}
