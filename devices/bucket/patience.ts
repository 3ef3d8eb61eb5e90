/** Repeats what failed, with back-off and jitter, for as long as that makes sense. */
import { StoreError } from "./store-error.ts";

const DELAY_FIRST_MS = 50;
const DELAY_MAX_MS = 10_000;
/** How long an operation may keep failing before the disk is served. */
const OPENING_MS = 20_000;

/** How operations of a store are repeated. */
export class Patience {
  /**
   * False while a disk is opened: a refusal is an error at once, and an unavailable store after a while. True while the
   * disk is served: requests wait, whatever the reason.
   */
  isEndless = false;
  /** How many operations keep failing. */
  #waiting = 0;
  #isAway = false;

  /** @param log receives a line when the store fails, and when it is back. */
  constructor(
    readonly name: string,
    readonly log: (line: string) => void,
  ) {}

  /**
   * @param attempt receives the number of failed attempts before it.
   * @throws StoreError in the end, or the reason of `signal`.
   */
  async insist<T>(attempt: (tries: number) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const begun = performance.now();
    let isWaiting = false;
    try {
      for (let tries = 0; ; tries += 1) {
        signal?.throwIfAborted();
        try {
          const result = await attempt(tries);
          this.#answered(isWaiting ? 1 : 0);
          isWaiting = false;
          return result;
        } catch (error) {
          signal?.throwIfAborted();
          if (!(error instanceof StoreError) || this.#isEnough(error, begun)) throw error;
          if (!isWaiting && this.isEndless && (tries > 0 || error.kind === "refused")) {
            isWaiting = true;
            this.#waits(error);
          }
        }
        await pause(Math.random() * Math.min(DELAY_MAX_MS, DELAY_FIRST_MS * 2 ** tries), signal);
      }
    } finally {
      if (isWaiting) this.#waiting -= 1;
    }
  }

  #isEnough({ kind }: StoreError, begun: number): boolean {
    return !this.isEndless && (kind === "refused" || performance.now() - begun > OPENING_MS);
  }

  #waits({ message }: StoreError): void {
    this.#waiting += 1;
    if (this.#isAway) return;
    this.#isAway = true;
    this.log(`${message}; requests wait until that is over`);
  }

  /** Others may still wait: credentials that may read may not be allowed to write. */
  #answered(waited: number): void {
    this.#waiting -= waited;
    if (!this.#isAway || this.#waiting > 0) return;
    this.#isAway = false;
    this.log(`${this.name} answers again`);
  }
}

/** Ends early, without an error, when the signal aborts. */
function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (signal?.aborted === true) done();
  });
}
