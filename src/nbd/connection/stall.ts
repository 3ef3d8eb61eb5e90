/**
 * Whether a peer is stuck: it has begun something, a request of which the rest does not come or replies that it does
 * not take, and does not get on with it. What counts is the one thing that is under way: a byte of it now and then is
 * not enough. That a device is slow is not its peer's fault.
 */

import type { Inbox } from "./inbox.ts";
import type { ReplyBatch } from "./reply-batch.ts";

/** The least that a peer must move, in bytes per millisecond: 64 KiB a second; 1 MiB when others wait for memory. */
const RATE = 65.536;
const RATE_WHEN_SHORT = 1048.576;
/** How long it may then do nothing at all, in milliseconds. */
const PAUSE_WHEN_SHORT_MS = 2000;

export class Stall {
  /** Which one of its kind is under way, how many bytes were left when it was first seen, and when that was. */
  #number = -1;
  #bytes = 0;
  #since = 0;

  /**
   * To be called now and then.
   * @param number of what is under way: another one for each; -1 for nothing.
   * @param bytes of it that are still to be moved: each that has been moved since it was first seen gives it time.
   * @param limitMs how long it may take, beside that.
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

/** Of both directions of a connection. */
export class Stalls {
  readonly #input = new Stall();
  readonly #output = new Stall();

  /** @param begun how many requests have begun, if the rest of the last one is waited for; else -1. */
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
