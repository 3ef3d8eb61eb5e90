/**
 * Writes the headers of replies in the NBD transmission phase (doc/proto.md of the NBD project, "Transmission") where
 * they are sent from. Pure functions over a DataView, which allocate nothing. Requests are read by request-header.ts.
 */
import { errno } from "../../uapi/errno.ts";
import { NBD_REPLY_MAGIC, nbd_reply } from "../../uapi/nbd.ts";
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbd_structured_reply,
} from "./numbers.ts";
import type { RequestHeader } from "./request-header.ts";

/** The longest READ or WRITE, in bytes: the kernel's limit (max_hw_sectors of 65,536), and the usual one elsewhere. */
export const MAX_PAYLOAD = 32 * 2 ** 20;

const WORD = 2 ** 32;

/** The part of a request that its reply repeats. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** Writes a simple reply. `error` is a number from {@link wireError}. */
export function putReply(view: DataView, at: number, error: number, cookie: Cookie): void {
  view.setUint32(at + nbd_reply.magic, NBD_REPLY_MAGIC);
  view.setUint32(at + nbd_reply.error, error);
  view.setInt32(at + nbd_reply.cookie, cookie.cookieHigh);
  view.setInt32(at + nbd_reply.cookie + 4, cookie.cookieLow);
}

/** Bytes of the header of the only chunk of a READ's structured reply: the chunk's own, and the offset. */
export const DATA_HEADER_BYTES = nbd_structured_reply.size + 8;

/** Writes the header of a structured reply's only chunk, which `length` bytes follow. */
export function putChunk(view: DataView, at: number, type: number, length: number, cookie: Cookie): void {
  view.setUint32(at + nbd_structured_reply.magic, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + nbd_structured_reply.flags, NBD_REPLY_FLAG_DONE);
  view.setUint16(at + nbd_structured_reply.type, type);
  view.setInt32(at + nbd_structured_reply.cookie, cookie.cookieHigh);
  view.setInt32(at + nbd_structured_reply.cookie + 4, cookie.cookieLow);
  view.setUint32(at + nbd_structured_reply.length, length);
}

/** Writes the {@link DATA_HEADER_BYTES} before the data that a READ brings. */
export function putDataHeader(view: DataView, at: number, read: RequestHeader): void {
  putChunk(view, at, NBD_REPLY_TYPE_OFFSET_DATA, 8 + read.length, read);
  view.setUint32(at + nbd_structured_reply.size, read.offset / WORD);
  view.setUint32(at + nbd_structured_reply.size + 4, read.offset % WORD);
}

/** The protocol's error for an errno: it has eight, and requires EINVAL or the nearest one for others. */
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
