/**
 * Opens the file or disk that a loop device serves. Finds everything that may be wrong with it before a node is
 * touched.
 */
import { fstatSync, lstatSync, readdirSync, type Stats, statSync, unlinkSync } from "node:fs";
import { DEFAULT_BLOCK_SIZE, errno, libc, UserError } from "tsbuse";

export interface LoopOptions {
  readonly readOnly?: boolean;
  /** Go around the page cache (O_DIRECT). */
  readonly direct?: boolean;
  /** Where the device begins in the file, in bytes; a multiple of 512. Default 0. */
  readonly offset?: number;
  /** How much of the file to serve, in bytes. Default: all from `offset` on. */
  readonly size?: number;
  /** Make a sparse file of this many bytes, which must not exist yet. */
  readonly create?: number;
  /**
   * A descriptor of the file, with its lock, handed over by another process. The loop device owns it from now on. What
   * it refers to is checked here.
   */
  readonly claim?: number | undefined;
  /** A flush failed in the process that had the file before. */
  readonly hasLost?: boolean | undefined;
}

/** A file that is open and fit to be served. */
export interface Backing {
  readonly path: string;
  readonly fd: number;
  /** The descriptor that keeps others from the file: `fd`, unless another process handed one over. */
  readonly claim: number;
  /** Where the device's byte 0 is in the file. */
  readonly start: number;
  readonly size: number;
  readonly blockSize: number;
  readonly isBlockDevice: boolean;
  readonly readOnly: boolean;
  readonly canTrim: boolean;
  readonly rotational: boolean;
  readonly created: boolean;
  /** Shared by all threads; not 0 once the system may have lost what was written: see Loop. */
  readonly lost: Int32Array;
}

/** The caller closes the file descriptor. @throws UserError */
export function openBacking(path: string, options: LoopOptions): Backing {
  const created = options.create !== undefined;
  if (created && options.readOnly === true) {
    throw new UserError("a new file that is read-only has no use: leave out --create or --read-only");
  }
  const stats = created ? undefined : inspect(path);
  const fd = openFile(path, stats, options);
  try {
    if (options.create !== undefined) {
      libc.unwrap(libc.ftruncate(fd, options.create), `cannot make ${path} ${options.create} bytes long`);
    }
    const lost = new Int32Array(new SharedArrayBuffer(4)).fill(options.hasLost === true ? 1 : 0);
    return { ...describe(path, fd, statSync(path), options), created, lost };
  } catch (error) {
    libc.close(fd);
    if (options.claim !== undefined) libc.close(options.claim);
    if (created) unlinkSync(path);
    throw error;
  }
}

/** What can be checked before opening. */
function inspect(path: string): Stats {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    const dangling = lstatSync(path, { throwIfNoEntry: false }) !== undefined;
    if (dangling)
      throw new UserError(`${path} is a symbolic link to a file that does not exist: correct the link`);
    throw new UserError(`${path} does not exist: check the name, or make it with --create SIZE`);
  }
  if (stats.isDirectory())
    throw new UserError(`${path} is a directory: give a regular file or a block device`);
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new UserError(`${path} is neither a regular file nor a block device: give one of these`);
  }
  return stats;
}

function openFile(path: string, stats: Stats | undefined, options: LoopOptions): number {
  let flags = options.readOnly === true ? libc.O_RDONLY : libc.O_RDWR;
  if (stats === undefined) flags |= libc.O_CREAT | libc.O_EXCL;
  // On a block device O_EXCL without O_CREAT is a claim: it fails while a mount, md, dm or swap holds the device.
  if (stats?.isBlockDevice() === true && !isOf(options.claim, stats)) flags |= libc.O_EXCL;
  if (options.direct === true) flags |= libc.O_DIRECT;
  const fd = libc.open(path, flags, 0o600);
  if (fd < 0) throw new UserError(openFailure(path, -fd, stats === undefined, options.direct === true));
  return fd;
}

function openFailure(path: string, number: number, creating: boolean, direct: boolean): string {
  switch (number) {
    case errno.EEXIST:
      return `${path} exists already: leave out --create to serve it as it is`;
    case errno.ENOENT:
      return `${path} cannot be made: its directory does not exist, make it first`;
    case errno.EACCES:
    case errno.EPERM:
      return creating
        ? `${path} cannot be made: permission denied, choose another directory or run as root`
        : `${path} cannot be opened: permission denied, add --read-only or run as root`;
    case errno.EROFS:
      return `${path} is on a read-only medium: add --read-only`;
    case errno.EBUSY:
      return `${path} is in use by a mount or another device: unmount or detach it first`;
    case errno.ETXTBSY:
      return `${path} is a program that is running: end it first, or add --read-only`;
    default:
      if (direct && number === errno.EINVAL) {
        return `the file system of ${path} does not do direct I/O: leave out --direct`;
      }
      return `${path} cannot be opened: ${libc.errorText(number)}`;
  }
}

function describe(
  path: string,
  fd: number,
  stats: Stats,
  options: LoopOptions,
): Omit<Backing, "created" | "lost"> {
  const isBlockDevice = stats.isBlockDevice();
  const readOnly = options.readOnly === true;
  if (isBlockDevice && !readOnly && libc.isReadOnlyBlockDevice(fd)) {
    throw new UserError(`${path} is read-only: add --read-only`);
  }
  const isClaimed = isOf(options.claim, stats);
  if (!isBlockDevice && !isClaimed) claimFile(path, fd, stats, readOnly);
  const available = isBlockDevice ? libc.blockDeviceSize(fd) : stats.size;
  const start = options.offset ?? 0;
  const size = chooseSize(path, available, start, options.size);
  const blockSize = options.direct === true ? directBlockSize(path, fd, start) : DEFAULT_BLOCK_SIZE;
  return {
    path,
    fd,
    claim: options.claim ?? fd,
    start,
    size,
    blockSize,
    isBlockDevice,
    readOnly,
    canTrim: !readOnly && (isBlockDevice ? discardSupported(stats.rdev) : holesSupported(fd, stats.size)),
    rotational: queueNumber(isBlockDevice ? stats.rdev : stats.dev, "rotational") === 1,
  };
}

function chooseSize(path: string, available: number, start: number, wanted: number | undefined): number {
  if (available === 0)
    throw new UserError(`${path} is empty: give it a size with "truncate -s SIZE ${path}"`);
  if (start % DEFAULT_BLOCK_SIZE !== 0) {
    throw new UserError(`offset ${start} is not a multiple of 512: give one that is`);
  }
  if (start >= available) {
    throw new UserError(`offset ${start} is beyond the end of ${path}: it has ${available} bytes`);
  }
  const size = wanted ?? available - start;
  if (size > available - start) {
    throw new UserError(
      `size ${size} is beyond the end of ${path}: from ${start} on it has ${available - start} bytes`,
    );
  }
  return size;
}

/** Whether a descriptor refers to this file or block device. */
function isOf(fd: number | undefined, stats: Stats): boolean {
  if (fd === undefined) return false;
  const { dev, ino, rdev } = fstatSync(fd);
  return stats.isBlockDevice() ? rdev === stats.rdev : dev === stats.dev && ino === stats.ino;
}

/** Takes a lock that every tsbuse takes, and looks at the kernel's own loop devices. */
function claimFile(path: string, fd: number, stats: Stats, readOnly: boolean): void {
  const operation = (readOnly ? libc.LOCK_SH : libc.LOCK_EX) | libc.LOCK_NB;
  if (libc.flock(fd, operation) === -errno.EAGAIN) {
    throw new UserError(`${path} is locked by another process that serves it: detach it there first`);
  }
  const holder = readOnly ? undefined : kernelLoopOn(stats);
  if (holder !== undefined) {
    throw new UserError(`${path} is in use by ${holder}: unmount it, then "losetup --detach ${holder}"`);
  }
}

/** The /dev/loopN that has this backing file. */
function kernelLoopOn(file: Stats): string | undefined {
  for (const name of readdirSync("/sys/block")) {
    if (!name.startsWith("loop")) continue;
    const backing = libc.readAttribute(`/sys/block/${name}/loop/backing_file`);
    if (backing === undefined) continue;
    const stats = statSync(backing, { throwIfNoEntry: false });
    if (stats !== undefined && stats.dev === file.dev && stats.ino === file.ino) return `/dev/${name}`;
  }
  return undefined;
}

/** The smallest aligned read that O_DIRECT allows at `start`: the block size of the file system or the disk. */
function directBlockSize(path: string, fd: number, start: number): number {
  const memory = new libc.Memory(65_536);
  try {
    for (const bytes of [512, 1024, 2048, 4096]) {
      const target = memory.bytes().subarray(0, bytes);
      if (start % bytes === 0 && libc.pread(fd, target, start) >= 0) return bytes;
    }
  } finally {
    memory.close();
  }
  throw new UserError(
    `direct I/O of ${path} at offset ${start} fails: give an offset that is a multiple of 4096`,
  );
}

/** Punching a hole beyond the end of the file changes nothing, but a file system without holes refuses it. */
function holesSupported(fd: number, fileSize: number): boolean {
  const beyond = Math.ceil(fileSize / 4096) * 4096;
  return libc.punchHole(fd, beyond, 4096) === 0;
}

function discardSupported(rdev: number): boolean {
  return (queueNumber(rdev, "discard_max_bytes") ?? 0) > 0;
}

/** A number from the request queue's directory in sysfs. A partition uses its disk's queue. */
function queueNumber(device: number, name: string): number | undefined {
  const { major, minor } = libc.deviceNumbers(device);
  const directory = `/sys/dev/block/${major}:${minor}`;
  return libc.readNumber(`${directory}/queue/${name}`) ?? libc.readNumber(`${directory}/../queue/${name}`);
}
