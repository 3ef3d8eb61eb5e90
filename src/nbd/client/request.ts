/** A request on its way to a server. Objects of this class are reused. */
import type { Extent } from "../../device.ts";

export class ClientRequest {
  /** NBD_CMD_*, and NBD_CMD_FLAG_* as <linux/nbd.h> has them. */
  command = 0;
  flags = 0;
  /** Bytes. */
  offset = 0;
  length = 0;
  /** The buffer that a read fills or a write sends: lent until it settles. */
  buffer: Uint8Array | undefined;
  /** Bytes of a read that have arrived. */
  received = 0;
  /** The errno from a part of the reply; 0 for none. */
  error = 0;
  errorText = "";
  readonly extents: Extent[] = [];
  /** Room for its data is reserved: see unflushed.ts. */
  isReserved = false;
  /** It repeats a write that was answered before. */
  isRepeat = false;
  /** For a flush: the end of the writes that it covers. */
  coverage = 0;
  /** It is a flush of our own, which no user has asked for. */
  isOwn = false;
  /** The number of the connection on which it was sent; -1 for none. */
  sentOn = -1;
  /** Counts the uses of the object, in 32 bits, so that a late answer is not taken for one of the next use. */
  serial = 0;
  resolve: () => void = nothing;
  reject: (reason: Error) => void = nothing;

  /** @param cookie its index in the table of its session, and half of the cookie on the wire. */
  constructor(readonly cookie: number) {}

  /** Resets it as if it had not been sent. */
  rewind(): void {
    this.received = 0;
    this.error = 0;
    this.errorText = "";
    this.sentOn = -1;
    this.extents.length = 0;
  }

  /** Releases what it was lent. */
  clear(): void {
    this.rewind();
    this.serial = (this.serial + 1) >>> 0;
    this.buffer = undefined;
    this.isReserved = false;
    this.isRepeat = false;
    this.isOwn = false;
    this.resolve = nothing;
    this.reject = nothing;
  }
}

function nothing(): void {}
