/**
 * For how long a loop asks for work over and over before it sleeps. It adapts as the halt polling of KVM does: where
 * the next request comes soon after the thread has gone to sleep, being woken is most of what a request takes, and
 * asking for a little longer would have found it. Where requests are far between, asking would be for nothing.
 *
 * Asking takes a processor. Where there is only one, it would be that of the program that makes the requests.
 */

const FIRST_MS = 0.01;
const MOST_MS = 0.05;

export class HaltPoll {
  /** Milliseconds to ask over and over before sleeping; 0 for not at all. */
  limitMs: number;
  readonly #isAdaptive: boolean;

  /**
   * @param wishMs always so long, 0 for never; undefined to adapt.
   * @param processors that this process may run on: the runtime looks at its affinity mask.
   */
  constructor(wishMs: number | undefined, processors = navigator.hardwareConcurrency) {
    this.limitMs = wishMs ?? 0;
    this.#isAdaptive = wishMs === undefined && processors > 1;
  }

  /**
   * To be called after each wait that ended with news.
   * @param tookMs the whole of it, the asking and the sleep.
   * @param slept the asking found nothing.
   */
  waited(tookMs: number, slept: boolean): void {
    if (!this.#isAdaptive) return;
    if (tookMs > MOST_MS) this.limitMs = 0;
    else if (slept) this.limitMs = this.limitMs === 0 ? FIRST_MS : Math.min(2 * this.limitMs, MOST_MS);
  }
}
