/** ioctls of block devices (include/uapi/linux/fs.h). Offsets and lengths are bytes; failure is -errno. */
import { BLKDISCARD, BLKGETSIZE64, BLKROGET, BLKZEROOUT } from "../uapi/fs.ts";
import { unwrap } from "./errno.ts";
import { ioctlBuffer } from "./ioctl.ts";

/** `uint64_t range[2]`, offset and length, of BLKDISCARD and BLKZEROOUT. */
const range = new BigUint64Array(2);

/** The size in bytes. @throws ErrnoError ENOTTY if this is not a block device. */
export function blockDeviceSize(fd: number): number {
  const size = new BigUint64Array(1);
  unwrap(ioctlBuffer(fd, BLKGETSIZE64, size), "ioctl(BLKGETSIZE64)");
  return Number(size[0]);
}

/** Whether the block device refuses writes. @throws ErrnoError */
export function isReadOnlyBlockDevice(fd: number): boolean {
  return intIoctl(fd, BLKROGET, "ioctl(BLKROGET)") !== 0;
}

/** BLKDISCARD. Returns 0 or -errno: -EOPNOTSUPP if the device does not support it. */
export function discardBlocks(fd: number, offset: number, length: number): number {
  return rangeIoctl(fd, BLKDISCARD, offset, length);
}

/** BLKZEROOUT: the kernel writes zeroes if the device has no faster way. Returns 0 or -errno. */
export function zeroBlocks(fd: number, offset: number, length: number): number {
  return rangeIoctl(fd, BLKZEROOUT, offset, length);
}

function rangeIoctl(fd: number, request: number, offset: number, length: number): number {
  range[0] = BigInt(offset);
  range[1] = BigInt(length);
  return ioctlBuffer(fd, request, range);
}

function intIoctl(fd: number, request: number, what: string): number {
  const value = new Int32Array(new ArrayBuffer(4));
  unwrap(ioctlBuffer(fd, request, value), what);
  return value[0] ?? 0;
}
