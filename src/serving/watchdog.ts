/** Finds requests that take too long. */

/** A request as far as its time is concerned. */
export interface Timed {
  /** When it began, by performance.now(). The watchdog's own. */
  since: number;
}

/** How many times within the limit it looks. */
const LOOKS = 4;

/** The time after which a late request has certainly been found, in milliseconds. */
export function foundAfter(limitMs: number): number {
  return limitMs + limitMs / LOOKS;
}

export class Watchdog<Request extends Timed> {
  readonly #limitMs: number;
  readonly #late: (request: Request) => void;
  readonly #timer: Timer;
  /** In the order in which they began. */
  readonly #watched = new Set<Request>();

  /** @param late is called once for each request that takes longer than `limitMs`. */
  constructor(limitMs: number, late: (request: Request) => void) {
    this.#limitMs = limitMs;
    this.#late = late;
    this.#timer = setInterval(() => this.#look(), limitMs / LOOKS);
  }

  watch(request: Request): void {
    request.since = performance.now();
    this.#watched.add(request);
  }

  release(request: Request): void {
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
