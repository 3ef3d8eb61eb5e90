/**
 * Whether a peer is stuck: it makes no progress with something that it has begun, a request whose rest does not arrive
 * or replies that it does not read. The item in progress counts as a whole: a byte of it now and then is not enough. A
 * slow device is not the peer's fault.
 */

import type { Inbox } from "./inbox.ts";
import type { ReplyBatch } from "./reply-batch.ts";

/** The least that a peer must move, in bytes per millisecond: 64 KiB a second; 1 MiB when others wait for memory. */
const RATE = 65.536;
const RATE_WHEN_SHORT = 1048.576;
/** How long it may then do nothing at all, in milliseconds. */
const PAUSE_WHEN_SHORT_MS = 2000;

export class Stall {
  /** The number of the item in progress, the bytes that were left when it was first seen, and when that was. */
  #number = -1;
  #bytes = 0;
  #since = 0;

  /**
   * Call it now and then.
   * @param number of the item in progress, different for each; -1 for none.
   * @param bytes of it that are still to move: each byte moved since it was first seen extends its time.
   * @param limitMs how long it may take besides that.
   * @param isShort others wait for the memory that it holds.
   * @param now by performance.now().
   */
  isOver(number: number, bytes: number, limitMs: number, isShort: boolean, now: number): boolean {
    if (number !== this.#number) {
      this.#number = number;
      this.#bytes = bytes;
      this.#since = now;
    }
    if (number < 0) return false;
    const moved = this.#bytes - bytes;
    const allowedMs = isShort
      ? Math.min(limitMs, PAUSE_WHEN_SHORT_MS) + moved / RATE_WHEN_SHORT
      : limitMs + moved / RATE;
    return now - this.#since >= allowedMs;
  }
}

/** The stalls in both directions of a connection. */
export class Stalls {
  readonly #input = new Stall();
  readonly #output = new Stall();

  /** @param begun the number of requests begun, if the rest of the last one is missing; else -1. */
  isOver(
    begun: number,
    { payloadLeft }: Inbox,
    batch: ReplyBatch,
    limitMs: number,
    isShort: boolean,
    now: number,
  ): boolean {
    const isInputOver = this.#input.isOver(begun, payloadLeft, limitMs, isShort, now);
    const number = batch.isEmpty ? -1 : batch.emptied;
    return this.#output.isOver(number, batch.unsentBytes, limitMs, isShort, now) || isInputOver;
  }
}
