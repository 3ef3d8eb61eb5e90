/** Writes replies into an outbox: simple ones, or structured ones for a client that has asked for them. */
import type { Extent } from "../device.ts";
import { errorText } from "../libc/errno.ts";
import { nbd_reply } from "../uapi/nbd.ts";
import type { Outbox } from "./outbox.ts";
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbd_structured_reply,
} from "./proto.ts";
import { putReply, wireError } from "./protocol.ts";

/** The number of `base:allocation` in replies: any will do. */
export const ALLOCATION_CONTEXT_ID = 1;

/** The part of a request that its reply repeats. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

const WORD = 2 ** 32;
const EXTENT_BYTES = 8;
const encoder = new TextEncoder();

export class ReplyWriter {
  constructor(
    readonly outbox: Outbox,
    readonly structured: boolean,
  ) {}

  /** The reply to anything that brings no payload. `status` is an errno, 0 for success. */
  status(cookie: Cookie, status: number): void {
    if (!this.structured) return this.#simple(cookie, wireError(status));
    if (status === 0) return this.#chunk(cookie, NBD_REPLY_TYPE_NONE, 0, 0);
    const message = encoder.encode(errorText(status));
    const { outbox } = this;
    this.#chunk(cookie, NBD_REPLY_TYPE_ERROR, 6 + message.length, 6);
    outbox.view.setUint32(outbox.at, wireError(status));
    outbox.view.setUint16(outbox.at + 4, message.length);
    outbox.append(message, undefined);
  }

  /** The reply to a READ that succeeded. `data` is the outbox's until `release`. */
  data(cookie: Cookie, offset: number, data: Uint8Array, release: () => void): void {
    const { outbox } = this;
    if (this.structured) {
      this.#chunk(cookie, NBD_REPLY_TYPE_OFFSET_DATA, 8 + data.length, 8);
      outbox.view.setUint32(outbox.at, offset / WORD);
      outbox.view.setUint32(outbox.at + 4, offset % WORD);
    } else {
      this.#simple(cookie, 0);
    }
    outbox.append(data, release);
  }

  /** The reply to a BLOCK_STATUS that succeeded. */
  extents(cookie: Cookie, extents: readonly Extent[]): void {
    const { outbox } = this;
    const length = 4 + EXTENT_BYTES * extents.length;
    this.#chunk(cookie, NBD_REPLY_TYPE_BLOCK_STATUS, length, length);
    let at = outbox.at;
    outbox.view.setUint32(at, ALLOCATION_CONTEXT_ID);
    at += 4;
    for (const extent of extents) {
      outbox.view.setUint32(at, extent.length);
      outbox.view.setUint32(at + 4, (extent.hole ? NBD_STATE_HOLE : 0) | (extent.zero ? NBD_STATE_ZERO : 0));
      at += EXTENT_BYTES;
    }
  }

  #simple(cookie: Cookie, error: number): void {
    this.outbox.reserve(nbd_reply.size);
    putReply(this.outbox.view, this.outbox.at, error, cookie.cookieHigh, cookie.cookieLow);
  }

  /** The header of the only chunk, and room for the first `room` bytes of what it says comes after it. */
  #chunk(cookie: Cookie, type: number, length: number, room: number): void {
    const { outbox } = this;
    outbox.reserve(nbd_structured_reply.size + room);
    const { view, at } = outbox;
    view.setUint32(at + nbd_structured_reply.magic, NBD_STRUCTURED_REPLY_MAGIC);
    view.setUint16(at + nbd_structured_reply.flags, NBD_REPLY_FLAG_DONE);
    view.setUint16(at + nbd_structured_reply.type, type);
    view.setInt32(at + nbd_structured_reply.cookie, cookie.cookieHigh);
    view.setInt32(at + nbd_structured_reply.cookie + 4, cookie.cookieLow);
    view.setUint32(at + nbd_structured_reply.length, length);
    outbox.at += nbd_structured_reply.size;
  }
}
