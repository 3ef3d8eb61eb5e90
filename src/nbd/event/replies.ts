/** Writes replies into an outbox: simple ones, or structured ones for a client that has asked for them. */
import type { Extent } from "../../device.ts";
import { nbd_reply } from "../../uapi/nbd.ts";
import { errorChunk, extentsChunk } from "../wire/chunks.ts";
import type { Outbox } from "./outbox.ts";
import { NBD_REPLY_TYPE_NONE, nbd_structured_reply } from "../wire/numbers.ts";
import { DATA_HEADER_BYTES, putChunk, putDataHeader, putReply, wireError } from "../wire/codec.ts";

/** The part of a request that its reply repeats. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export class ReplyWriter {
  constructor(
    readonly outbox: Outbox,
    readonly structured: boolean,
  ) {}

  /** The reply to anything that brings no payload. `status` is an errno, 0 for success. */
  status({ cookieHigh, cookieLow }: Cookie, status: number): void {
    const { outbox } = this;
    if (!this.structured) {
      outbox.reserve(nbd_reply.size);
      putReply(outbox.view, outbox.at, wireError(status), cookieHigh, cookieLow);
    } else if (status === 0) {
      outbox.reserve(nbd_structured_reply.size);
      putChunk(outbox.view, outbox.at, NBD_REPLY_TYPE_NONE, 0, cookieHigh, cookieLow);
    } else {
      outbox.append(errorChunk(status, cookieHigh, cookieLow), undefined);
    }
  }

  /** The reply to a READ that succeeded. `data` is the outbox's until `release`. */
  data({ cookieHigh, cookieLow }: Cookie, offset: number, data: Uint8Array, release: () => void): void {
    const { outbox } = this;
    if (this.structured) {
      outbox.reserve(DATA_HEADER_BYTES);
      putDataHeader(outbox.view, outbox.at, offset, data.length, cookieHigh, cookieLow);
    } else {
      outbox.reserve(nbd_reply.size);
      putReply(outbox.view, outbox.at, 0, cookieHigh, cookieLow);
    }
    outbox.append(data, release);
  }

  /** The reply to a BLOCK_STATUS that succeeded. */
  extents({ cookieHigh, cookieLow }: Cookie, extents: readonly Extent[]): void {
    this.outbox.append(extentsChunk(extents, cookieHigh, cookieLow), undefined);
  }
}
