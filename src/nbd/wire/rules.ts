/** What a request may be, and what it asks of the device. */
import type { Dispatch, Status } from "../../dispatch.ts";
import { errno } from "../../uapi/errno.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../uapi/nbd.ts";
import { MAX_PAYLOAD } from "./codec.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_REQ_ONE } from "./numbers.ts";
import type { RequestHeader } from "./request-header.ts";

/** Whether the request asks for its data to be on stable storage. */
export function isFua(request: RequestHeader): boolean {
  return (request.flags & NBD_CMD_FLAG_FUA) !== 0;
}

/** Whether the request changes the bytes of its range, or may. A flush has no range. */
export function changesData({ command }: RequestHeader): boolean {
  return command !== NBD_CMD_READ && command !== NBD_CMD_FLUSH && command !== NBD_CMD_BLOCK_STATUS;
}

/**
 * Why a request does not go to the device: a positive errno; 0 when it may, or when it is for the device to say.
 * @param structured the client has asked for structured replies. Each has but one chunk, so that DF is always honoured.
 * @param allocation the client has asked for `base:allocation`.
 */
export function whyRefused(
  dispatch: Dispatch,
  request: RequestHeader,
  structured: boolean,
  allocation: boolean,
): number {
  const { command, flags, offset, length } = request;
  switch (command) {
    case NBD_CMD_READ: {
      const known = structured ? NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF : NBD_CMD_FLAG_FUA;
      if ((flags & ~known) !== 0 || length > MAX_PAYLOAD) return errno.EINVAL;
      return dispatch.checkRead(offset, length);
    }
    case NBD_CMD_WRITE:
      if ((flags & ~NBD_CMD_FLAG_FUA) !== 0 || length > MAX_PAYLOAD) return errno.EINVAL;
      return dispatch.checkWrite(offset, length, isFua(request));
    // FUA is valid with every command, and asks for nothing of one that changes nothing.
    case NBD_CMD_BLOCK_STATUS:
      return allocation && (flags & ~(NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_FUA)) === 0 ? 0 : errno.EINVAL;
    default:
      return 0;
  }
}

/** Performs a request without payload in either direction; EINVAL for any other command. */
export function performWithoutPayload(dispatch: Dispatch, request: RequestHeader): Status {
  const { command, flags, offset, length } = request;
  const fua = isFua(request);
  const noHole = (flags & NBD_CMD_FLAG_NO_HOLE) !== 0;
  if ((flags & ~(NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE)) !== 0) return errno.EINVAL;
  if (command === NBD_CMD_WRITE_ZEROES) return dispatch.writeZeroes(offset, length, fua, noHole);
  if (noHole) return errno.EINVAL;
  if (command === NBD_CMD_FLUSH) return dispatch.flush();
  if (command === NBD_CMD_TRIM) return dispatch.trim(offset, length, fua);
  return errno.EINVAL;
}
