/**
 * How much work a loop does before the event loop gets a turn: as much as fits into a few milliseconds, and at least
 * one piece, however long it takes. The shorter the pieces, the less often it reads the clock.
 */

import { Clock } from "./clock.ts";

export const SLICE_MS = 5;
/** Pieces of work from one look at the clock to the next: twice as many while they take less than this together. */
const SHORT_MS = 0.5;
const PIECES_MAX = 16;

export class TimeSlice {
  /** Check this before each piece of work. */
  isOver = false;
  #until = 0;
  #lookedAt = 0;
  #pieces = 1;
  #left = 1;
  readonly #clock: Clock;

  constructor(clock = new Clock()) {
    this.#clock = clock;
  }

  /** @param limitMs how long it is. */
  begin(limitMs = SLICE_MS): void {
    this.isOver = false;
    this.#lookedAt = this.#clock.read();
    this.#until = this.#lookedAt + limitMs;
    this.#pieces = 1;
    this.#left = 1;
  }

  /** To be called after each piece of work. */
  worked(): void {
    this.#left -= 1;
    if (this.#left > 0) return;
    this.look();
  }

  /** Looks at the clock. Returns whether the slice is over. */
  look(): boolean {
    const now = this.#clock.read();
    this.isOver = now >= this.#until;
    this.#pieces = now - this.#lookedAt < SHORT_MS ? Math.min(2 * this.#pieces, PIECES_MAX) : 1;
    this.#left = this.#pieces;
    this.#lookedAt = now;
    return this.isOver;
  }
}
