/**
 * Ends a run from outside: at its time limit, or by a signal.
 */
import { constants } from "node:os";

/** Why a run was ended, and the exit status. */
export interface Stop {
  readonly status: number;
  readonly message: string;
  /** Absent if the time was up. */
  readonly signal?: NodeJS.Signals;
}

/** The exit status of a run that reached its time limit, as of timeout(1). */
const STATUS_TIMEOUT = 124;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Aborts its signal when the time is up, or when the process receives a signal to end. */
export class StopSwitch implements Disposable {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #stop: Stop | undefined;

  constructor(timeoutSeconds: number) {
    this.#timer = setTimeout(() => {
      this.#turn({
        status: STATUS_TIMEOUT,
        message: `no end after ${timeoutSeconds} s: raise --timeout if the command needs longer`,
      });
    }, timeoutSeconds * 1000);
    for (const name of SIGNALS) process.on(name, this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why the signal was aborted; undefined until then. */
  get stop(): Stop | undefined {
    return this.#stop;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const name of SIGNALS) process.off(name, this.#onSignal);
  }

  readonly #onSignal = (name: NodeJS.Signals): void => {
    this.#turn({ status: 128 + constants.signals[name], message: `stopped by ${name}`, signal: name });
  };

  #turn(stop: Stop): void {
    this.#stop ??= stop;
    this.#controller.abort();
  }
}
