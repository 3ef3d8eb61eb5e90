/** The directory in which a run makes its images, and the removal of those that killed runs left behind. */
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { messageOf, UserError } from "../errors.ts";
import { flock, open, pwrite } from "../libc/file.ts";
import { readAttribute, unescapeOctal } from "../libc/sysfs.ts";
import { LOCK_EX, LOCK_NB, O_CREAT, O_NOFOLLOW, O_RDWR } from "../uapi/fcntl.ts";
import { endThoseOf } from "./strays.ts";

const PREFIX = "tsbuse-crash-";
const LOCK = "lock";
/** Free space that the images must leave for other files, in bytes. */
const ROOM = 2 ** 20;

export class RunDirectory implements Disposable {
  readonly #lock: number;

  private constructor(
    readonly path: string,
    lock: number,
  ) {
    this.#lock = lock;
  }

  /** Removes what killed runs left first. @param parent of the directory. @throws UserError */
  static make(parent: string): RunDirectory {
    sweep(parent);
    for (;;) {
      const path = makeTemporary(parent);
      const lock = lockOf(path, O_CREAT);
      if (lock !== undefined) return new RunDirectory(path, lock);
      // Another run removed it as one left by a killed run.
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw noRoom(path, "no lock can be made");
    }
  }

  /** Leaves the directory if something is mounted in it. */
  [Symbol.dispose](): void {
    if (mountBelow(this.path) === undefined) rmSync(this.path, { recursive: true, force: true });
    closeSync(this.#lock);
  }
}

/** @throws UserError */
function makeTemporary(parent: string): string {
  try {
    return mkdtempSync(join(parent, PREFIX));
  } catch (error) {
    throw new UserError(
      `no directory for images in ${parent} (${messageOf(error)}): set TMPDIR to another one`,
      { cause: error },
    );
  }
}

/** @throws UserError */
export function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    throw noRoom(path, messageOf(error), error);
  }
}

export function noRoom(path: string, why: string, cause?: unknown): UserError {
  return new UserError(
    `no room for an image at ${path} (${why}): set TMPDIR elsewhere, or give fewer --jobs`,
    {
      cause,
    },
  );
}

/** Whether there is space left: a checker without any fails, whatever the disk holds. */
export function hasRoom(directory: string): boolean {
  const path = join(directory, "room");
  const fd = open(path, O_RDWR | O_CREAT, 0o600);
  if (fd < 0) return false;
  const written = pwrite(fd, new Uint8Array(new ArrayBuffer(ROOM)), 0);
  closeSync(fd);
  rmSync(path, { force: true });
  return written === ROOM;
}

/** Ends the checkers of this user's killed runs, and removes their directories. */
function sweep(parent: string): void {
  const user = process.getuid?.();
  for (const name of entriesOf(parent)) {
    const path = join(parent, name);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (!name.startsWith(PREFIX) || stats?.isDirectory() !== true || stats.uid !== user) continue;
    const lock = lockOf(path, 0);
    if (lock === undefined) {
      removeEmpty(path);
      continue;
    }
    endThoseOf(path);
    removeLeft(path);
    closeSync(lock);
  }
}

/** Leaves what a process that does not end keeps busy for the next run. */
function removeLeft(path: string): void {
  try {
    if (mountBelow(path) === undefined) rmSync(path, { recursive: true, force: true });
  } catch {
    // The next run removes the rest.
  }
}

/**
 * Makes an empty directory, whatever was there. Does not remove what a checker has mounted in it.
 * @throws UserError
 */
export function emptyDirectory(path: string): void {
  if (existsSync(path) && readdirSync(path).length === 0) return;
  const mount = mountBelow(path);
  if (mount !== undefined)
    throw new UserError(
      `the checker has left ${mount} mounted: unmount it, and let the checker do so at its end`,
    );
  rmSync(path, { recursive: true, force: true });
  makeDirectory(path);
}

/** A mount point in a directory, or the directory itself. */
function mountBelow(directory: string): string | undefined {
  const lines = (readAttribute("/proc/self/mountinfo") ?? "").split("\n");
  const real = realpathOf(directory);
  return lines
    .map((line) => unescapeOctal(line.split(" ")[4] ?? ""))
    .find((point) => point === real || point.startsWith(`${real}/`));
}

/** The path as the kernel names it. */
function realpathOf(path: string): string {
  return existsSync(path) ? realpathSync(path) : path;
}

/** The names in a directory; none if it cannot be read. */
function entriesOf(parent: string): string[] {
  try {
    return readdirSync(parent);
  } catch {
    return [];
  }
}

/** Removes the directory of a run that ended before it had its lock. */
function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // It is in use, or another process removed it.
  }
}

/** A descriptor that holds the lock of a directory; undefined if another run holds it, or the directory is gone. */
function lockOf(directory: string, flags: number): number | undefined {
  const path = join(directory, LOCK);
  const fd = open(path, O_RDWR | O_NOFOLLOW | flags, 0o600);
  if (fd < 0) return undefined;
  const isHeld = flock(fd, LOCK_EX | LOCK_NB) === 0;
  // Its previous owner may have removed it.
  if (isHeld && statSync(path, { throwIfNoEntry: false }) !== undefined) return fd;
  closeSync(fd);
  return undefined;
}
