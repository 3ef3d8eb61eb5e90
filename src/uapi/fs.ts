/** include/uapi/linux/fs.h: ioctls of block devices. */
import { _IO, _IOR } from "./ioctl.ts";

/** `size_t` in the numbers below: eight bytes on every target of ours. */
const SIZEOF_SIZE_T = 8;

export const BLKROGET = _IO(0x12, 94);
export const BLKFLSBUF = _IO(0x12, 97);
export const BLKGETSIZE64 = _IOR(0x12, 114, SIZEOF_SIZE_T);
export const BLKDISCARD = _IO(0x12, 119);
export const BLKZEROOUT = _IO(0x12, 127);

/** `pwritev2` flag: this write alone behaves as under O_DSYNC. */
export const RWF_DSYNC = 0x00000002;
/** `preadv2` and `pwritev2` flag: -EAGAIN in place of a wait, and fewer bytes than asked for where some are there. */
export const RWF_NOWAIT = 0x00000008;

/** `whence` of lseek(2): the next data, or the next hole, at or after the offset. */
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
