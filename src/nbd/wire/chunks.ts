/** The structured replies that are not on the hot path: whole chunks, header included. */
import type { Extent } from "../../device.ts";
import { errorText } from "../../libc/errno.ts";
import {
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_ERROR,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  nbd_structured_reply,
} from "./numbers.ts";
import { type Cookie, putChunk, wireError } from "./codec.ts";

/** The number of `base:allocation` in replies: any will do. */
export const ALLOCATION_CONTEXT_ID = 1;

const EXTENT_BYTES = 8;
const encoder = new TextEncoder();

/** An error with its text. `status` is an errno. */
export function errorChunk(status: number, cookie: Cookie): Uint8Array {
  const message = encoder.encode(errorText(status));
  const at = nbd_structured_reply.size;
  const chunk = new Uint8Array(new ArrayBuffer(at + 6 + message.length));
  const view = new DataView(chunk.buffer);
  putChunk(view, 0, NBD_REPLY_TYPE_ERROR, 6 + message.length, cookie);
  view.setUint32(at, wireError(status));
  view.setUint16(at + 4, message.length);
  chunk.set(message, at + 6);
  return chunk;
}

/** The reply to a BLOCK_STATUS that succeeded. */
export function extentsChunk(extents: readonly Extent[], cookie: Cookie): Uint8Array {
  const length = 4 + EXTENT_BYTES * extents.length;
  const chunk = new Uint8Array(new ArrayBuffer(nbd_structured_reply.size + length));
  const view = new DataView(chunk.buffer);
  putChunk(view, 0, NBD_REPLY_TYPE_BLOCK_STATUS, length, cookie);
  let at = nbd_structured_reply.size;
  view.setUint32(at, ALLOCATION_CONTEXT_ID);
  at += 4;
  for (const extent of extents) {
    view.setUint32(at, extent.length);
    view.setUint32(at + 4, (extent.hole ? NBD_STATE_HOLE : 0) | (extent.zero ? NBD_STATE_ZERO : 0));
    at += EXTENT_BYTES;
  }
  return chunk;
}
