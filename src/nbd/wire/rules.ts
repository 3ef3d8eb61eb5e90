/** What a request may be and what it asks of the device: one place for both pumps. */
import type { Dispatch, Status } from "../../dispatch.ts";
import { errno } from "../../uapi/errno.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE_ZEROES,
} from "../../uapi/nbd.ts";
import { NBD_CMD_FLAG_DF, NBD_CMD_FLAG_REQ_ONE } from "./numbers.ts";
import { MAX_PAYLOAD } from "./codec.ts";

/** 0 when this READ may go to the device, else a positive errno. */
export function readError(dispatch: Dispatch, flags: number, offset: number, length: number): number {
  if ((flags & ~NBD_CMD_FLAG_FUA) !== 0 || length > MAX_PAYLOAD) return errno.EINVAL;
  return dispatch.checkRead(offset, length);
}

/** 0 when this WRITE may go to the device, else a positive errno. */
export function writeError(dispatch: Dispatch, flags: number, offset: number, length: number): number {
  if ((flags & ~NBD_CMD_FLAG_FUA) !== 0 || length > MAX_PAYLOAD) return errno.EINVAL;
  return dispatch.checkWrite(offset, length, (flags & NBD_CMD_FLAG_FUA) !== 0);
}

/**
 * 0 when this BLOCK_STATUS may go to the device, else a positive errno.
 * @param allocation the client has asked for `base:allocation`.
 */
export function extentsError(allocation: boolean, flags: number): number {
  return allocation && (flags & ~NBD_CMD_FLAG_REQ_ONE) === 0 ? 0 : errno.EINVAL;
}

/** The flags of a READ that say something: in its structured reply there is but one chunk, so DF is always honoured. */
export function readFlags(flags: number, structured: boolean): number {
  return structured ? flags & ~NBD_CMD_FLAG_DF : flags;
}

/** Carries out a request that has no payload in either direction; what is none of these is EINVAL. */
export function performWithoutPayload(
  dispatch: Dispatch,
  command: number,
  flags: number,
  offset: number,
  length: number,
): Status {
  const fua = (flags & NBD_CMD_FLAG_FUA) !== 0;
  const noHole = (flags & NBD_CMD_FLAG_NO_HOLE) !== 0;
  if ((flags & ~(NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE)) !== 0) return errno.EINVAL;
  if (command === NBD_CMD_WRITE_ZEROES) return dispatch.writeZeroes(offset, length, fua, noHole);
  if (noHole) return errno.EINVAL;
  if (command === NBD_CMD_FLUSH) return dispatch.flush();
  if (command === NBD_CMD_TRIM) return dispatch.trim(offset, length, fua);
  return errno.EINVAL;
}
