/** Limits log lines of one kind: a few at a time, and then a line that says how many more there were. */

/** How many lines, and in how many milliseconds. */
const LINES = 8;
const PERIOD_MS = 10_000;

export class LogLimit {
  readonly #log: (line: string) => void;
  readonly #what: string;
  #since = Number.NEGATIVE_INFINITY;
  #said = 0;
  #omitted = 0;
  #timer: Timer | undefined;

  /** @param what they are about, as in `12 more requests took too long`. */
  constructor(log: (line: string) => void, what: string) {
    this.#log = log;
    this.#what = what;
  }

  say(line: string): void {
    const now = performance.now();
    if (now - this.#since >= PERIOD_MS) {
      this.close();
      this.#since = now;
      this.#said = 0;
    }
    this.#said += 1;
    if (this.#said <= LINES) return this.#log(line);
    this.#omitted += 1;
    this.#timer ??= setTimeout(() => this.close(), this.#since + PERIOD_MS - now);
  }

  /** Logs how many lines were left out. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#omitted > 0) this.#log(`${this.#omitted} more ${this.#what}`);
    this.#omitted = 0;
  }
}
