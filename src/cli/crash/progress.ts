/** What `tsbuse crash` reports while it runs. */
import { report } from "../log.ts";

const INTERVAL_MS = 10_000;

export class Progress {
  readonly #start = performance.now();
  #reported = this.#start;

  /**
   * @param states the most to try.
   * @param deadline in terms of performance.now(); Infinity for none.
   */
  constructor(
    readonly states: number,
    readonly deadline: number,
  ) {}

  /** States per second. */
  rate(tried: number): number {
    return tried / Math.max(0.001, (performance.now() - this.#start) / 1000);
  }

  tell(tried: number): void {
    const now = performance.now();
    if (now - this.#reported < INTERVAL_MS) return;
    this.#reported = now;
    const rate = this.rate(tried);
    const seconds = Math.min((this.states - tried) / rate, (this.deadline - now) / 1000);
    report(`${tried} states, ${rate.toFixed(0)} a second, at most ${duration(seconds)} left`);
  }
}

/** `12 s`, `3 min`, `2 h`. */
function duration(seconds: number): string {
  if (seconds < 120) return `${Math.ceil(seconds)} s`;
  return seconds < 7200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}
