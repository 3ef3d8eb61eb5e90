/** One request on its way through an event connection. Objects are used again, so that a request costs none. */
import type { Dispatch, Status } from "../../dispatch.ts";
import { NBD_CMD_FLAG_FUA, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { PooledBuffer } from "./buffer-pool.ts";
import { NBD_CMD_BLOCK_STATUS } from "../wire/numbers.ts";
import type { Ranged } from "../../serving/range-order.ts";
import type { RequestReader } from "./request-reader.ts";
import { extentsError, performWithoutPayload, readError, readFlags, writeError } from "../wire/rules.ts";

/** What a request tells its connection. */
export interface RequestOwner {
  /** Nothing is in its way any more. */
  proceed(request: EventRequest): void;
  /** The device has answered: an errno, 0 for success. */
  settled(request: EventRequest, status: number): void;
}

export class EventRequest implements Ranged {
  command = 0;
  /** NBD_CMD_FLAG_*. */
  flags = 0;
  offset = 0;
  length = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** Why it does not go to the device; 0 when it does. */
  error = 0;
  buffer: PooledBuffer | undefined;
  /** When its header came in, by performance.now(). */
  since = 0;
  /** It has been answered before it was done. */
  abandoned = false;

  start = 0;
  end = 0;
  changes = false;
  place = -1;
  blockers = 0;
  followers: Ranged[] | undefined;

  readonly settle: (status: number) => void;
  readonly #owner: RequestOwner;

  constructor(owner: RequestOwner) {
    this.#owner = owner;
    this.settle = (status) => owner.settled(this, status);
  }

  /** Takes over the header that the reader has decoded. */
  reset(header: RequestReader): void {
    this.command = header.command;
    this.flags = header.flags;
    this.offset = header.offset;
    this.length = header.length;
    this.cookieHigh = header.cookieHigh;
    this.cookieLow = header.cookieLow;
    this.error = 0;
    this.buffer = undefined;
    this.abandoned = false;
    this.start = header.offset;
    this.end = header.offset + header.length;
    this.changes = false;
    this.followers = undefined;
  }

  proceed(): void {
    this.#owner.proceed(this);
  }

  releaseBuffer(): void {
    this.buffer?.release();
    this.buffer = undefined;
  }
}

/**
 * Notes what is wrong with the request, and whether it changes data.
 * @param structured the client has asked for structured replies.
 * @param allocation the client has asked for `base:allocation`.
 */
export function judge(
  request: EventRequest,
  dispatch: Dispatch,
  structured: boolean,
  allocation: boolean,
): void {
  const { flags, offset, length } = request;
  switch (request.command) {
    case NBD_CMD_READ:
      request.error = readError(dispatch, readFlags(flags, structured), offset, length);
      return;
    case NBD_CMD_WRITE:
      request.error = writeError(dispatch, flags, offset, length);
      request.changes = true;
      return;
    case NBD_CMD_BLOCK_STATUS:
      request.error = extentsError(allocation, flags);
      return;
    case NBD_CMD_FLUSH:
      // It waits for nobody, and nobody for it.
      request.end = request.start;
      return;
    default:
      request.changes = true;
  }
}

/** Gives the request to the device: anything but BLOCK_STATUS. */
export function perform(
  { command, flags, offset, length, buffer }: EventRequest,
  dispatch: Dispatch,
): Status {
  if (buffer === undefined) return performWithoutPayload(dispatch, command, flags, offset, length);
  const view = buffer.view(length);
  if (command === NBD_CMD_READ) return dispatch.read(view, offset);
  return dispatch.write(view, offset, (flags & NBD_CMD_FLAG_FUA) !== 0);
}
