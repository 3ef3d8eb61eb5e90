/**
 * The header of a request in the transmission phase (doc/proto.md of the NBD project, "Transmission"): decoded in
 * place, into an object that is made once and used for any number of requests.
 */
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  nbd_request,
} from "../../uapi/nbd.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE } from "./numbers.ts";

const COMMAND_MASK = 0xffff;
const WORD = 2 ** 32;

const NAMES: ReadonlyMap<number, string> = new Map([
  [NBD_CMD_READ, "read"],
  [NBD_CMD_WRITE, "write"],
  [NBD_CMD_DISC, "disconnect"],
  [NBD_CMD_FLUSH, "flush"],
  [NBD_CMD_TRIM, "trim"],
  [NBD_CMD_CACHE, "cache"],
  [NBD_CMD_WRITE_ZEROES, "write zeroes"],
  [NBD_CMD_BLOCK_STATUS, "block status"],
]);

/** `write zeroes`, or `command 9` for what has no name. */
export function commandName(command: number): string {
  return NAMES.get(command) ?? `command ${command}`;
}

export class RequestHeader {
  magic = 0;
  /** NBD_CMD_*. */
  command = 0;
  /** NBD_CMD_FLAG_* as <linux/nbd.h> has them, in the upper half of the word. */
  flags = 0;
  /** Bytes. Above 2^53 the number is not exact, but it is above 2^53, and so beyond the end of any device. */
  offset = 0;
  /** Bytes, up to 2^32 - 1. */
  length = 0;
  /** The halves of the cookie, which is the peer's and opaque; signed, since such a number stays an integer inside. */
  cookieHigh = 0;
  cookieLow = 0;

  /** Decodes the header at `at`, which must be complete. */
  decode(view: DataView, at: number): void {
    const type = view.getUint32(at + nbd_request.type);
    const from = at + nbd_request.from;
    this.magic = view.getUint32(at + nbd_request.magic);
    this.command = type & COMMAND_MASK;
    this.flags = (type & ~COMMAND_MASK) >>> 0;
    this.offset = view.getUint32(from) * WORD + view.getUint32(from + 4);
    this.length = view.getUint32(at + nbd_request.len);
    this.cookieHigh = view.getInt32(at + nbd_request.cookie);
    this.cookieLow = view.getInt32(at + nbd_request.cookie + 4);
  }

  /** Copies the fields of another one. */
  copy(other: RequestHeader): void {
    this.magic = other.magic;
    this.command = other.command;
    this.flags = other.flags;
    this.offset = other.offset;
    this.length = other.length;
    this.cookieHigh = other.cookieHigh;
    this.cookieLow = other.cookieLow;
  }

  /** `write offset 4096 length 8192`. */
  describe(): string {
    return `${commandName(this.command)} offset ${this.offset} length ${this.length}`;
  }
}
