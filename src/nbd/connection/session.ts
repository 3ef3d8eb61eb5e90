/**
 * A connection from its first request until all its requests are answered, for those who wait for it. Once it has
 * ended, at the wish of the peer or of this end, it takes no more requests, and waits for those that the device still
 * has, but not for ever.
 */
import { POLLIN, POLLOUT } from "../../uapi/poll.ts";
import type { Awaited } from "../wait/member.ts";
import { Connection } from "./connection.ts";
import type { Service } from "./service.ts";
import type { ConnectionOptions, Outcome } from "./types.ts";

/** How a session ended; `stopped`: by this end. */
export type Ending = Exclude<Outcome, "turn"> | "stopped";

/** How often to check whether a peer that delays the end reads its replies, in milliseconds. */
const LOOK_MS = 2000;
/** How long requests with the device, and replies on their way, may delay the end, in milliseconds. */
const DRAIN_MS = 10_000;

export class Session {
  readonly connection: Connection;
  /** Set once no more requests are taken. */
  ending: Ending | undefined;
  /** Nothing is left to do, or nobody to do it for. */
  isOver = false;
  /** At the end it waits for the device until {@link leave}, and for its peer as usual. */
  isPatient = false;
  /** Called once, when no more requests are taken. */
  onEnd: (() => void) | undefined;
  readonly #onOver: () => void;
  /** Called once every request that has begun to arrive is answered, while no more are taken. */
  #onPaused: (() => void) | undefined;
  #drainTimer: Timer | undefined;
  #looks = 0;
  #progress = 0;

  /**
   * @param fd see {@link Connection}.
   * @param onOver called once, when it is over.
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
    // Leaves in the socket what arrives then.
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
   * Stops between two requests: calls `onPaused` when every request that has begun to arrive is answered. What arrives
   * later stays in the socket. Do not call it from within a step.
   */
  pause(onPaused: () => void): void {
    this.#onPaused = onPaused;
    this.connection.inbox.holdsBack = true;
    this.#lookForPause();
  }

  /** Continues, even if it has not stopped yet. */
  resume(): void {
    this.#onPaused = undefined;
    this.connection.inbox.holdsBack = false;
  }

  /** Takes no more requests; those in flight are answered, however long that takes. */
  stop(): void {
    this.isPatient = true;
    if (this.ending === undefined) this.#end("stopped");
  }

  /** Stops waiting for anybody. */
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

  /** Counts abandoned requests: the device would still perform them, after those of the next server. */
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
