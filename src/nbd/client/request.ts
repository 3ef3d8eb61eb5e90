/** A request on its way to a server. Objects of this class are used again and again. */
import type { Extent } from "../../device.ts";

export class ClientRequest {
  /** NBD_CMD_*, and NBD_CMD_FLAG_* as <linux/nbd.h> has them. */
  command = 0;
  flags = 0;
  /** Bytes. */
  offset = 0;
  length = 0;
  /** What a read fills, or a write sends: lent until it is settled. */
  buffer: Uint8Array | undefined;
  /** Bytes of a read that have come. */
  received = 0;
  /** The errno that a part of the reply has told of; 0 for none. */
  error = 0;
  errorText = "";
  readonly extents: Extent[] = [];
  /** Room is set aside for what it writes: see unflushed.ts. */
  isReserved = false;
  /** It is a write that was answered before, and is sent again. */
  isRepeat = false;
  /** Of a flush: what has been written by then. */
  coverage = 0;
  /** It is a flush that nobody has asked for. */
  isOwn = false;
  /** The number of the connection that it has been sent on; -1 for none. */
  sentOn = -1;
  /** Counts how often the object has been used, in 32 bits: a late answer is not taken for one of the next use. */
  serial = 0;
  resolve: () => void = nothing;
  reject: (reason: Error) => void = nothing;

  /** @param cookie is its place in the table of its session, and half of what the server is told. */
  constructor(readonly cookie: number) {}

  /** As if it had not been sent. */
  rewind(): void {
    this.received = 0;
    this.error = 0;
    this.errorText = "";
    this.sentOn = -1;
    this.extents.length = 0;
  }

  /** Lets go of what it was lent. */
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
