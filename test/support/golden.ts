/**
 * The NBD protocol as a peer sees it, written from its specification (doc/proto.md, "Transmission"). It shares nothing
 * with src/, so that it does not repeat a mistake there.
 */

/** NBD_CMD_*. */
export const READ = 0;
export const WRITE = 1;
export const DISC = 2;
export const FLUSH = 3;
export const TRIM = 4;
export const WRITE_ZEROES = 6;

/** NBD_CMD_FLAG_*, bits of the 16-bit field "command flags". */
export const FUA = 1 << 0;
export const NO_HOLE = 1 << 1;

/** The protocol's errors. */
export const EPERM = 1;
export const EIO = 5;
export const ENOMEM = 12;
export const EINVAL = 22;
export const ENOSPC = 28;
export const EOVERFLOW = 75;
export const ENOTSUP = 95;
export const ESHUTDOWN = 108;

export const HEADER_BYTES = 28;
export const REPLY_BYTES = 16;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;

export interface Request {
  readonly command: number;
  readonly flags?: number;
  readonly cookie: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  /** The data of a WRITE, which determines the length. */
  readonly payload?: Uint8Array;
}

export interface Reply {
  readonly cookie: bigint;
  readonly error: number;
  /** The data of a READ; empty for all other commands. */
  readonly payload: Uint8Array;
}

/** `count` reads, `step` bytes apart, with cookies from `first` on. */
export function readsOf(count: number, length: number, step = length, first = 0): Request[] {
  return Array.from({ length: count }, (_, index) => {
    return { command: READ, cookie: BigInt(first + index), offset: index * step, length };
  });
}

/** The request on the wire: 28 bytes, then the payload of a WRITE. */
export function encode(request: Request): Uint8Array {
  const payload = request.payload ?? new Uint8Array();
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, REQUEST_MAGIC);
  view.setUint16(4, request.flags ?? 0);
  view.setUint16(6, request.command);
  view.setBigUint64(8, request.cookie);
  view.setBigUint64(16, BigInt(request.offset ?? 0));
  view.setUint32(24, lengthOf(request));
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

export function encodeAll(requests: readonly Request[]): Uint8Array {
  return concatenate(requests.map(encode));
}

/** Replies in order of arrival. @throws Error if the bytes are not complete simple replies to `requests`. */
export function decodeReplies(bytes: Uint8Array, requests: readonly Request[]): Reply[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const asked = new Map(requests.map((request) => [request.cookie, request]));
  const replies: Reply[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < REPLY_BYTES) throw new Error(`${bytes.length - at} bytes after the last reply`);
    if (view.getUint32(at) !== REPLY_MAGIC) throw new Error(`no reply at byte ${at}`);
    const error = view.getUint32(at + 4);
    const cookie = view.getBigUint64(at + 8);
    const request = asked.get(cookie);
    if (request === undefined)
      throw new Error(`a reply with cookie ${cookie}, which was not asked or came twice`);
    asked.delete(cookie);
    const length = request.command === READ && error === 0 ? lengthOf(request) : 0;
    at += REPLY_BYTES + length;
    if (at > bytes.length) throw new Error(`the payload of cookie ${cookie} ends early`);
    replies.push({ cookie, error, payload: bytes.subarray(at - length, at) });
  }
  return replies;
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** `25 60 95 13` as bytes; blanks and newlines are ignored. */
export function hex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
}

function lengthOf(request: Request): number {
  return request.payload?.length ?? request.length ?? 0;
}
