/** The handshake as a client speaks it, written from the specification; it shares nothing with src/. */
import { concatenate } from "./golden.ts";

const IHAVEOPT = 0x49484156454f5054n;
const REPLY = 0x3e889045565a9n;

export const FIXED = 1;
export const NO_ZEROES = 2;
export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;
export const REP = { ACK: 1, SERVER: 2, INFO: 3, META_CONTEXT: 4 } as const;
export const ERR = {
  UNSUP: 2 ** 31 + 1,
  INVALID: 2 ** 31 + 3,
  UNKNOWN: 2 ** 31 + 6,
  TOO_BIG: 2 ** 31 + 9,
} as const;

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

export function clientFlags(flags: number): Uint8Array {
  return number(flags, 4);
}

export function option(type: number, ...data: readonly Uint8Array[]): Uint8Array {
  const whole = concatenate(data);
  return optionOfLength(type, whole.length, whole);
}

/** An option with any length in its header, perhaps a wrong one. */
export function optionOfLength(type: number, length: number, data: Uint8Array): Uint8Array {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  view.setBigUint64(0, IHAVEOPT);
  view.setUint32(8, type);
  view.setUint32(12, length);
  return concatenate([header, data]);
}

/** A length in four bytes, then UTF-8. */
export function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return concatenate([number(bytes.length, 4), bytes]);
}

export function number(value: number, bytes: 2 | 4): Uint8Array {
  const result = new Uint8Array(bytes);
  const view = new DataView(result.buffer);
  if (bytes === 2) view.setUint16(0, value);
  else view.setUint32(0, value);
  return result;
}

/** The data of GO and INFO: a name and the requested information. */
export function goData(name: string, ...infos: readonly number[]): Uint8Array {
  return concatenate([text(name), number(infos.length, 2), ...infos.map((info) => number(info, 2))]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, ...queries: readonly string[]): Uint8Array {
  return concatenate([text(name), number(queries.length, 4), ...queries.map(text)]);
}

/** Everything a client sends to get the default export: its flags, these options, and GO. */
export function hello(...options: readonly Uint8Array[]): Uint8Array {
  return concatenate([clientFlags(FIXED | NO_ZEROES), ...options, option(OPT.GO, goData(""))]);
}

/** Replies to options. @throws Error if the bytes are not complete replies. */
export function optionReplies(bytes: Uint8Array): OptionReply[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const replies: OptionReply[] = [];
  for (let at = 0; at < bytes.length;) {
    if (view.getBigUint64(at) !== REPLY) throw new Error(`no option reply at byte ${at}`);
    const length = view.getUint32(at + 16);
    if (at + 20 + length > bytes.length) throw new Error("the last option reply ends early");
    replies.push({
      option: view.getUint32(at + 8),
      type: view.getUint32(at + 12),
      data: bytes.slice(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return replies;
}
