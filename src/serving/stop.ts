/**
 * The end of a device in use, the same for every transport: requests in flight are answered, and the device is flushed
 * and closed, under one deadline. A caller that does not want to wait cuts it short and is told what was not done.
 */
import { messageOf, UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";

/** A transport as far as its end is concerned. */
export interface Stoppable {
  readonly path: string;
  readonly inFlight: number;
  detach(): void;
  leave?(): void;
  cut(reason: UserError): void;
}

export interface StopOptions {
  /** Milliseconds that the end may take before it is cut short. Default: no limit. */
  readonly stopTimeoutMs?: number | undefined;
  /** Gets a line if the end takes long. */
  readonly log?: ((line: string) => void) | undefined;
}

/** The step that the end has reached. */
type Step = "start" | "serve" | "flush" | "close";

/** How long cleaning up may take after a cut, in milliseconds: everything is over within a second. */
const GRACE_MS = 800;
/** How long to wait before the log says what the end waits for. */
const NEWS_MS = 10_000;
/** The longest time of a timer. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export class Stop {
  readonly #options: StopOptions;
  #path: string;
  #transport: Stoppable | undefined;
  #step: Step = "start";
  /** Whether the device could be used. */
  wasReady = false;
  #hasBegun = false;
  /** The node stays, for the next server. */
  #isLeaving = false;
  #isOver = false;
  #deadline: Timer | undefined;
  #deadlineAt = Number.POSITIVE_INFINITY;
  #news: Timer | undefined;
  #grace: Timer | undefined;
  /** What failed before the device was closed. */
  #failure: unknown;
  /** Why it was cut short. */
  #reason: UserError | undefined;
  /** The first is rejected when the end is cut short; the second when the time for cleaning up is over, too. */
  readonly #cutShort = Promise.withResolvers<never>();
  readonly #abandoned = Promise.withResolvers<never>();

  /** @param target its name until it has a path. */
  constructor(target: string, options: StopOptions = {}) {
    this.#path = target;
    this.#options = options;
    for (const { promise } of [this.#cutShort, this.#abandoned]) promise.catch(() => undefined);
  }

  /** Why it was cut short; undefined while it was not. */
  get reason(): UserError | undefined {
    return this.#reason;
  }

  /** The transport has been made. Serving it also cleans it up, so it is served even if it is to end at once. */
  attached(transport: Stoppable): void {
    this.#transport = transport;
    if (this.#reason !== undefined) transport.cut(this.#reason);
  }

  /** The device can be used. Not to be called after a cut. */
  ready(): void {
    this.wasReady = true;
    this.#step = "serve";
    this.#path = this.#transport?.path ?? this.#path;
  }

  /**
   * Ends the device in order; at once if it could not be used yet. A second call only shortens the time.
   */
  begin(limitMs = this.#options.stopTimeoutMs): void {
    if (this.#isOver || this.#reason !== undefined) return;
    this.startClock(limitMs);
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    this.#expectNews();
    if (this.#step === "start") this.cut();
    else this.#transport?.detach();
  }

  /** As {@link begin}, but leaves the node and its users to the next server, which the transport must be able to do. */
  leave(): void {
    if (this.#isOver || this.#reason !== undefined || this.#hasBegun) return;
    this.startClock();
    this.#hasBegun = true;
    this.#isLeaving = true;
    this.#expectNews();
    this.#transport?.leave?.();
  }

  /** Starts the clock, although something else is waited for first. */
  startClock(limitMs = this.#options.stopTimeoutMs): void {
    if (this.#isOver) return;
    if (limitMs === undefined || performance.now() + limitMs >= this.#deadlineAt) return;
    this.#deadlineAt = performance.now() + limitMs;
    clearTimeout(this.#deadline);
    // A time longer than a timer's is as good as none.
    if (limitMs <= TIMER_MAX_MS) this.#deadline = setTimeout(() => this.cut(), limitMs);
  }

  /** Stops waiting: requests in flight fail, and what was not written is lost. Over within a second. */
  cut(): void {
    if (this.#isOver || this.#reason !== undefined) return;
    const reason = new UserError(this.#whatIsLost());
    this.#reason = reason;
    this.#grace = setTimeout(() => this.#abandoned.reject(reason), GRACE_MS);
    this.#cutShort.reject(reason);
    this.#transport?.cut(reason);
  }

  /** Settles as `work` does, or is rejected a moment after it was cut short. */
  async run(work: Promise<void>): Promise<void> {
    try {
      await Promise.race([work, this.#abandoned.promise]);
    } finally {
      this.#isOver = true;
      for (const timer of [this.#deadline, this.#news, this.#grace]) clearTimeout(timer);
    }
  }

  /** The last flush, when the last request has been answered. @throws UserError when it fails, or is cut short. */
  async flush(dispatch: { flush(): number | Promise<number> }): Promise<void> {
    if (this.#reason !== undefined) throw this.#reason;
    // The end may not have been asked for here.
    this.#hasBegun = true;
    this.startClock();
    this.#expectNews();
    this.#step = "flush";
    const status = await Promise.race([dispatch.flush(), this.#cutShort.promise]);
    if (status === 0) return;
    throw new UserError(
      `${this.#path}: the last flush failed (${errorText(status)}): what was written last may be lost, check it`,
    );
  }

  /**
   * Closes the device, however it was served.
   * @param failure what has failed before, if anything.
   * @throws UserError when it fails, or is cut short.
   */
  async close(device: { close?(): void | Promise<void> }, failure: unknown): Promise<void> {
    this.#step = "close";
    this.#failure = failure;
    this.startClock();
    this.#expectNews();
    // After a cut there is still the time for cleaning up.
    const end = this.#reason === undefined ? this.#cutShort : this.#abandoned;
    try {
      await Promise.race([device.close?.(), end.promise]);
    } catch (error) {
      if (error === this.#reason) throw error;
      throw new UserError(`${this.#path}: the device failed to close: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Not while a command of `--run` is waited for. */
  #expectNews(): void {
    if (!this.#isOver) this.#news ??= setTimeout(() => this.#tellNews(), NEWS_MS);
  }

  #tellNews(): void {
    this.#options.log?.(
      `${this.#path} has not ended after ${NEWS_MS / 1000} s: it waits for ${this.#awaited()}`,
    );
  }

  #awaited(): string {
    if (this.#step === "flush" || this.#step === "close") return `the ${this.#step} of the device`;
    const awaited = this.#isLeaving ? "what has been begun" : "its data to be written back";
    return `${awaited}, with ${this.#inFlight()}`;
  }

  #inFlight(): string {
    const count = this.#transport?.inFlight ?? 0;
    return `${count} ${count === 1 ? "request" : "requests"} in flight`;
  }

  #whatIsLost(): string {
    const path = this.#path;
    const lost = "what was not written is lost, check it";
    switch (this.#step) {
      case "start":
        return `${path} was stopped before it could be used`;
      case "serve":
        if (this.#isLeaving)
          return `${path} was left with ${this.#inFlight()}: they are made again of its next server`;
        return `${path} was cut off with ${this.#inFlight()}: ${lost}`;
      case "flush":
        return `${path} was cut off before the last flush was done: ${lost}`;
      case "close":
        return this.#failure === undefined
          ? `${path}: all data was written, but the device has not closed in time`
          : `${messageOf(this.#failure)}; and the device has not closed in time`;
    }
  }
}
