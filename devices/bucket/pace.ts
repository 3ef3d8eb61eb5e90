/** Limits bytes per second. */

/** A longer pause is split, so that a signal is noticed in between. */
const PAUSE_MS_MAX = 200;

export class Pace {
  /** When everything taken so far is paid for, by `performance.now()`. */
  #paid = 0;

  /** @param bytesPerSecond undefined: no limit. */
  constructor(readonly bytesPerSecond: number | undefined) {}

  /** Done when these bytes may go, or early when the signal aborts. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.bytesPerSecond === undefined) return;
    const due = Math.max(this.#paid, performance.now());
    this.#paid = due + (bytes / this.bytesPerSecond) * 1000;
    for (let now = performance.now(); now < due && !signal.aborted; now = performance.now())
      await Bun.sleep(Math.min(due - now, PAUSE_MS_MAX));
  }
}
