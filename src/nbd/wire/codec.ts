/**
 * The codec of the NBD transmission phase (doc/proto.md of the NBD project, "Transmission"): reads a request where
 * it lies, writes a reply's header where it is sent from. Pure functions over a DataView, which allocate nothing.
 */
import { errno } from "../../uapi/errno.ts";
import { NBD_REPLY_MAGIC, nbd_reply, nbd_request } from "../../uapi/nbd.ts";
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbd_structured_reply,
} from "./numbers.ts";

/** The longest READ or WRITE, in bytes: the kernel's limit (max_hw_sectors of 65,536), and the usual one elsewhere. */
export const MAX_PAYLOAD = 32 * 2 ** 20;

const COMMAND_MASK = 0xffff;
const WORD = 2 ** 32;

export function requestMagic(view: DataView, at: number): number {
  return view.getUint32(at + nbd_request.magic);
}

/** NBD_CMD_*. */
export function requestCommand(view: DataView, at: number): number {
  return view.getUint32(at + nbd_request.type) & COMMAND_MASK;
}

/** NBD_CMD_FLAG_* as <linux/nbd.h> has them, in the upper half of the word. */
export function requestFlags(view: DataView, at: number): number {
  return (view.getUint32(at + nbd_request.type) & ~COMMAND_MASK) >>> 0;
}

/** In bytes. Above 2^53 the number is not exact, but it is above 2^53, and so beyond the end of any device. */
export function requestOffset(view: DataView, at: number): number {
  return view.getUint32(at + nbd_request.from) * WORD + view.getUint32(at + nbd_request.from + 4);
}

/** In bytes, up to 2^32 - 1. */
export function requestLength(view: DataView, at: number): number {
  return view.getUint32(at + nbd_request.len);
}

/** The halves of the cookie, which is the peer's and opaque; signed, since such a number stays an integer inside. */
export function requestCookieHigh(view: DataView, at: number): number {
  return view.getInt32(at + nbd_request.cookie);
}

export function requestCookieLow(view: DataView, at: number): number {
  return view.getInt32(at + nbd_request.cookie + 4);
}

/** Writes a simple reply. `error` is a number from {@link wireError}. */
export function putReply(
  view: DataView,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(at + nbd_reply.magic, NBD_REPLY_MAGIC);
  view.setUint32(at + nbd_reply.error, error);
  view.setInt32(at + nbd_reply.cookie, cookieHigh);
  view.setInt32(at + nbd_reply.cookie + 4, cookieLow);
}

/** Bytes of the header of the only chunk of a READ's structured reply: the chunk's own, and the offset. */
export const DATA_HEADER_BYTES = nbd_structured_reply.size + 8;

/** Writes the header of a structured reply's only chunk, which `length` bytes follow. */
export function putChunk(
  view: DataView,
  at: number,
  type: number,
  length: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(at + nbd_structured_reply.magic, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + nbd_structured_reply.flags, NBD_REPLY_FLAG_DONE);
  view.setUint16(at + nbd_structured_reply.type, type);
  view.setInt32(at + nbd_structured_reply.cookie, cookieHigh);
  view.setInt32(at + nbd_structured_reply.cookie + 4, cookieLow);
  view.setUint32(at + nbd_structured_reply.length, length);
}

/** Writes the {@link DATA_HEADER_BYTES} before the `length` bytes of data that a READ at `offset` brings. */
export function putDataHeader(
  view: DataView,
  at: number,
  offset: number,
  length: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  putChunk(view, at, NBD_REPLY_TYPE_OFFSET_DATA, 8 + length, cookieHigh, cookieLow);
  view.setUint32(at + nbd_structured_reply.size, offset / WORD);
  view.setUint32(at + nbd_structured_reply.size + 4, offset % WORD);
}

/** The protocol's error for an errno: it has eight, and asks for EINVAL or the nearest where there is none. */
export function wireError(number: number): number {
  switch (number) {
    case 0:
    case errno.EPERM:
    case errno.EIO:
    case errno.ENOMEM:
    case errno.EINVAL:
    case errno.ENOSPC:
    case errno.EOVERFLOW:
    case errno.EOPNOTSUPP:
    case errno.ESHUTDOWN:
      return number;
    case errno.EROFS:
    case errno.EACCES:
      return errno.EPERM;
    case errno.EDQUOT:
    case errno.EFBIG:
      return errno.ENOSPC;
    default:
      return errno.EIO;
  }
}
