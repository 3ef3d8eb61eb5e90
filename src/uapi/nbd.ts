/**
 * include/uapi/linux/nbd.h: the ioctls, the commands, the flags and the two messages of the protocol that the
 * kernel's client speaks. Everything on the wire is big-endian.
 */
import { _IO } from "./ioctl.ts";

export const NBD_SET_SOCK = _IO(0xab, 0);
export const NBD_SET_BLKSIZE = _IO(0xab, 1);
export const NBD_DO_IT = _IO(0xab, 3);
export const NBD_CLEAR_SOCK = _IO(0xab, 4);
export const NBD_PRINT_DEBUG = _IO(0xab, 6);
export const NBD_SET_SIZE_BLOCKS = _IO(0xab, 7);
export const NBD_DISCONNECT = _IO(0xab, 8);
export const NBD_SET_TIMEOUT = _IO(0xab, 9);
export const NBD_SET_FLAGS = _IO(0xab, 10);

export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
/** In the header since Linux 6.12. */
export const NBD_CMD_WRITE_ZEROES = 6;

export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
/** Honoured since Linux 6.12; older kernels ignore the bit. */
export const NBD_FLAG_ROTATIONAL = 1 << 4;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
/** Honoured since Linux 6.12; older kernels ignore the bit. */
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;

/** Flags of one command, in the upper half of the request's `type` word: the header's values carry that shift. */
export const NBD_CMD_FLAG_FUA = 1 << 16;
/** In the header since Linux 6.12. */
export const NBD_CMD_FLAG_NO_HOLE = 1 << 17;

export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_REPLY_MAGIC = 0x67446698;

/** `struct nbd_request`: byte offsets and size, packed. */
export const nbd_request = { magic: 0, type: 4, cookie: 8, from: 16, len: 24, size: 28 } as const;

/** `struct nbd_reply`: byte offsets and size, packed. */
export const nbd_reply = { magic: 0, error: 4, cookie: 8, size: 16 } as const;
