/**
 * A connection from its first request until all its requests are answered, as those see it who wait for it. Once it has
 * ended, because the peer wanted it or we do, it takes no more requests, and what the device still has is waited for,
 * but not for ever.
 */
import { POLLIN, POLLOUT } from "../../uapi/poll.ts";
import type { Awaited } from "../wait/member.ts";
import { Connection } from "./connection.ts";
import type { Service } from "./service.ts";
import type { ConnectionOptions, Outcome } from "./types.ts";

/** How a session ended; `stopped`: this end wanted it. */
export type Ending = Exclude<Outcome, "turn"> | "stopped";

/** How often it is looked whether a peer that holds up the end takes its replies, in milliseconds. */
const LOOK_MS = 2000;
/** How long what the device has, and replies on their way, hold up the end, in milliseconds. */
const DRAIN_MS = 10_000;

export class Session {
  readonly connection: Connection;
  /** Set once no more requests are taken. */
  ending: Ending | undefined;
  /** Nothing is left to be done, or nobody to do it for. */
  isOver = false;
  /** At the end the device is waited for until {@link leave}, and its peer as ever. */
  isPatient = false;
  /** Called once, when no more requests are taken. */
  onEnd: (() => void) | undefined;
  readonly #onOver: () => void;
  /** Called once all is answered that has begun to come in, while no more is to come. */
  #onPaused: (() => void) | undefined;
  #drainTimer: Timer | undefined;
  #looks = 0;
  #progress = 0;

  /**
   * @param fd see {@link Connection}.
   * @param onOver is called once, when it is over.
   */
  constructor(
    readonly fd: number,
    service: Service,
    options: ConnectionOptions,
    onOver: () => void,
  ) {
    this.connection = new Connection(fd, service, options);
    this.#onOver = onOver;
  }

  get events(): number {
    const { connection } = this;
    if (this.ending !== undefined) return connection.hasReplies ? POLLOUT : 0;
    if (connection.waitsFor === "output") return POLLOUT;
    // What is there then is not taken.
    if (connection.inbox.holdsBack && !connection.inbox.midRequest) return 0;
    return connection.waitsFor === "memory" || connection.waitsFor === "device" ? 0 : POLLIN;
  }

  get isReady(): boolean {
    if (this.isOver) return false;
    if (this.ending === undefined) return this.connection.isReady || this.#canPause;
    return this.connection.hasSettled && !this.connection.hasReplies;
  }

  get waitsForDevice(): boolean {
    return this.connection.held > 0 && !this.isOver;
  }

  /** Serves for up to `limitMs`. */
  step(limitMs: number): void {
    if (this.isOver) return;
    if (this.ending === undefined) {
      const outcome = this.connection.run(limitMs);
      if (outcome !== "turn") this.#end(outcome);
      else this.#lookForPause();
    } else if (this.connection.flush()) {
      this.leave();
    }
  }

  /** See {@link Connection.await}. */
  await(sleep: boolean): Awaited {
    const isIdle = this.events === POLLIN && this.connection.waitsFor === "input";
    return isIdle ? this.connection.await(sleep) : "elsewhere";
  }

  /** See {@link Connection.isStuck}. */
  isStuck(limitMs: number, now: number): boolean {
    return this.connection.isStuck(limitMs, now, this.ending === undefined);
  }

  /**
   * Stops between two requests: `onPaused` is called when all that has begun to come in is answered. Whatever comes
   * after it stays in the socket. Never from within a step.
   */
  pause(onPaused: () => void): void {
    this.#onPaused = onPaused;
    this.connection.inbox.holdsBack = true;
    this.#lookForPause();
  }

  /** Goes on, also when it has not stopped yet. */
  resume(): void {
    this.#onPaused = undefined;
    this.connection.inbox.holdsBack = false;
  }

  /** Takes no more requests; those in flight are answered, however long that takes. */
  stop(): void {
    this.isPatient = true;
    if (this.ending === undefined) this.#end("stopped");
  }

  /** Waits for nobody any more. */
  leave(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.ending ??= "stopped";
    clearInterval(this.#drainTimer);
    this.#onOver();
  }

  #lookForPause(): void {
    if (!this.#canPause) return;
    const onPaused = this.#onPaused;
    this.#onPaused = undefined;
    onPaused?.();
  }

  /** What was answered in the device's place counts: it would still be done, and after what the next server does. */
  get #canPause(): boolean {
    if (this.#onPaused === undefined || this.ending !== undefined) return false;
    const { inbox, left, hasReplies } = this.connection;
    return !inbox.midRequest && left === 0 && !hasReplies;
  }

  #end(ending: Ending): void {
    this.ending = ending;
    this.onEnd?.();
    if (this.connection.peerIsGone && this.connection.held === 0) return this.leave();
    if (this.connection.flush()) return this.leave();
    this.#looks = 0;
    this.#progress = this.connection.progress;
    this.#drainTimer = setInterval(() => this.#look(), LOOK_MS);
  }

  #look(): void {
    const { held, progress } = this.connection;
    if (held > 0 && this.isPatient) return;
    this.#looks += 1;
    const isDeaf = held === 0 && progress === this.#progress;
    this.#progress = progress;
    if (isDeaf || this.#looks * LOOK_MS >= DRAIN_MS) this.leave();
  }
}
