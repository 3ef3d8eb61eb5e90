/** Finds requests that take too long. */
import type { EventRequest } from "./event-request.ts";

/** How many times within the limit it looks. */
const LOOKS = 4;

export class Watchdog {
  readonly #limitMs: number;
  readonly #late: (request: EventRequest) => void;
  readonly #timer: Timer;
  /** In the order in which they began. */
  readonly #watched = new Set<EventRequest>();

  /** @param late is called once for each request that takes longer than `limitMs`. */
  constructor(limitMs: number, late: (request: EventRequest) => void) {
    this.#limitMs = limitMs;
    this.#late = late;
    this.#timer = setInterval(() => this.#look(), limitMs / LOOKS);
  }

  watch(request: EventRequest): void {
    request.since = performance.now();
    this.#watched.add(request);
  }

  release(request: EventRequest): void {
    this.#watched.delete(request);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    for (const request of this.#watched) {
      if (now - request.since < this.#limitMs) return;
      this.#watched.delete(request);
      this.#late(request);
    }
  }
}
