/** A bound on bytes per second. */

/** Longer pauses are made of several: a signal is looked at in between. */
const PAUSE_MS_MAX = 200;

export class Pace {
  /** When all that was taken so far is paid for, by `performance.now()`. */
  #paid = 0;

  /** @param bytesPerSecond undefined: no bound. */
  constructor(readonly bytesPerSecond: number | undefined) {}

  /** Done when these bytes may go, or early when the signal comes. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.bytesPerSecond === undefined) return;
    const due = Math.max(this.#paid, performance.now());
    this.#paid = due + (bytes / this.bytesPerSecond) * 1000;
    for (let now = performance.now(); now < due && !signal.aborted; now = performance.now())
      await Bun.sleep(Math.min(due - now, PAUSE_MS_MAX));
  }
}
