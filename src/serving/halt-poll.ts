/**
 * How long a loop polls for work before it sleeps. It adapts like the halt polling of KVM. If the next request comes
 * soon after the thread has gone to sleep, waking up is most of the latency, and polling a little longer would have
 * found the request. If requests are far between, polling is in vain.
 *
 * Polling occupies a processor. If there is only one, the program that makes the requests needs it.
 */

const FIRST_MS = 0.01;
const MOST_MS = 0.05;

export class HaltPoll {
  /** Milliseconds to poll before sleeping; 0 for not at all. */
  limitMs: number;
  readonly #isAdaptive: boolean;

  /**
   * @param wishMs a fixed time, 0 for never; undefined to adapt.
   * @param processors that this process may run on: the runtime looks at its affinity mask.
   */
  constructor(wishMs: number | undefined, processors = navigator.hardwareConcurrency) {
    this.limitMs = wishMs ?? 0;
    this.#isAdaptive = wishMs === undefined && processors > 1;
  }

  /**
   * To be called after each wait that ended with news.
   * @param tookMs the whole wait, polling and sleep.
   * @param slept whether polling found nothing.
   */
  waited(tookMs: number, slept: boolean): void {
    if (!this.#isAdaptive) return;
    if (tookMs > MOST_MS) this.limitMs = 0;
    else if (slept) this.limitMs = this.limitMs === 0 ? FIRST_MS : Math.min(2 * this.limitMs, MOST_MS);
  }
}
