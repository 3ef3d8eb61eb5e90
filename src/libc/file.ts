/**
 * Files and block devices: open to close. Each returns what its system call returns, or -errno (see errno.ts).
 * Offsets and lengths are bytes. A buffer is used during the call only.
 */
import { ptr } from "bun:ffi";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "../uapi/falloc.ts";
import { O_CLOEXEC } from "../uapi/fcntl.ts";
import { RWF_DSYNC, RWF_NOWAIT, SEEK_DATA, SEEK_HOLE } from "../uapi/fs.ts";
import { AT_FDCWD, SYS_mknodat, SYS_preadv2, SYS_pwritev2 } from "../uapi/unistd.ts";
import { cString } from "./address.ts";
import { negativeErrno } from "./errno.ts";
import { IovecTable } from "./iovec.ts";
import { libc } from "./library.ts";

/** open(2), always close-on-exec. `mode` matters only with O_CREAT. Returns a file descriptor. */
export function open(path: string, flags: number, mode = 0): number {
  return negativeErrno(libc.open(cString(path), flags | O_CLOEXEC, mode));
}

/** close(2). */
export function close(fd: number): number {
  return negativeErrno(libc.close(fd));
}

/** dup2(2): `target` becomes a copy of `source`, which survives an exec. */
export function dup2(source: number, target: number): number {
  return negativeErrno(libc.dup2(source, target));
}

/** lseek(2), SEEK_DATA: where the next data begins, at or after `offset`; -ENXIO when there is none. */
export function seekData(fd: number, offset: number): number {
  return negativeErrno(libc.lseek(fd, offset, SEEK_DATA));
}

/** lseek(2), SEEK_HOLE: where the next hole begins, at or after `offset`; the end of the file is one. */
export function seekHole(fd: number, offset: number): number {
  return negativeErrno(libc.lseek(fd, offset, SEEK_HOLE));
}

/** pread(2) into all of `target`. Returns the bytes read, fewer at the end of the file. */
export function pread(fd: number, target: Uint8Array, offset: number): number {
  return negativeErrno(libc.pread(fd, target, target.byteLength, offset));
}

/** pwrite(2) of all of `source`. Returns the bytes written. */
export function pwrite(fd: number, source: Uint8Array, offset: number): number {
  return negativeErrno(libc.pwrite(fd, source, source.byteLength, offset));
}

/** write(2) of `source`. Returns the bytes written, perhaps not all. */
export function write(fd: number, source: Uint8Array): number {
  return negativeErrno(libc.write(fd, source, source.byteLength));
}

/** Shared by the functions below: calls do not overlap within a thread, and each thread has its own. */
const iovecs = new IovecTable(1);

/** pwritev2(2) of all of `source` with RWF_DSYNC: the bytes written are on stable storage. Returns their number. */
export function pwriteDsync(fd: number, source: Uint8Array, offset: number): number {
  iovecs.set(0, ptr(source), source.byteLength);
  return negativeErrno(libc.pwritev2(SYS_pwritev2, fd, iovecs.words, 1, offset, 0, RWF_DSYNC));
}

/**
 * preadv2(2) into all of `target` with RWF_NOWAIT. Returns the bytes that could be read without waiting for a disk,
 * -EAGAIN for none, 0 at the end of the file, -EOPNOTSUPP if the file system cannot tell.
 */
export function preadNow(fd: number, target: Uint8Array, offset: number): number {
  iovecs.set(0, ptr(target), target.byteLength);
  return negativeErrno(libc.preadv2(SYS_preadv2, fd, iovecs.words, 1, offset, 0, RWF_NOWAIT));
}

/** pwritev2(2) of all of `source` with RWF_NOWAIT. Returns the bytes written, else as {@link preadNow} does. */
export function pwriteNow(fd: number, source: Uint8Array, offset: number): number {
  iovecs.set(0, ptr(source), source.byteLength);
  return negativeErrno(libc.pwritev2(SYS_pwritev2, fd, iovecs.words, 1, offset, 0, RWF_NOWAIT));
}

/** fsync(2). */
export function fsync(fd: number): number {
  return negativeErrno(libc.fsync(fd));
}

/** fdatasync(2). */
export function fdatasync(fd: number): number {
  return negativeErrno(libc.fdatasync(fd));
}

/** syncfs(2): the whole file system that contains `fd`. */
export function syncfs(fd: number): number {
  return negativeErrno(libc.syncfs(fd));
}

/**
 * fallocate(2): allocates space for the range, within the file or beyond its end, and keeps its contents.
 * -EOPNOTSUPP if the file system does not support it.
 */
export function allocate(fd: number, offset: number, length: number): number {
  return negativeErrno(libc.fallocate(fd, 0, offset, length));
}

/** fallocate(2): the range reads as zeroes and takes no space. -EOPNOTSUPP if the file system does not support it. */
export function punchHole(fd: number, offset: number, length: number): number {
  return negativeErrno(libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}

/** fallocate(2): the range reads as zeroes and keeps its space. -EOPNOTSUPP if the file system does not support it. */
export function zeroRange(fd: number, offset: number, length: number): number {
  return negativeErrno(libc.fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length));
}

/** ftruncate(2). */
export function ftruncate(fd: number, length: number): number {
  return negativeErrno(libc.ftruncate(fd, length));
}

/** flock(2). `operation` is made of LOCK_ flags. */
export function flock(fd: number, operation: number): number {
  return negativeErrno(libc.flock(fd, operation));
}

/** mknod(2) of a device with mode 0600. `type` is S_IFBLK or S_IFCHR. */
export function mknod(path: string, type: number, major: number, minor: number): number {
  return negativeErrno(
    libc.mknodat(SYS_mknodat, AT_FDCWD, cString(path), type | 0o600, makedev(major, minor)),
  );
}

/** makedev(3): the layout of a device number in glibc and musl. */
function makedev(major: number, minor: number): number {
  const high = (major & 0xfffff000) * 2 ** 32 + (minor & 0xffffff00) * 2 ** 12;
  return high + (major & 0xfff) * 2 ** 8 + (minor & 0xff);
}
