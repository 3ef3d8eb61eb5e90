/** One client of the server: the handshake, then its requests, until it leaves or is cut off. */
import { messageOf } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { receiveBytes, sendBytes, shutdownSending } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { POLLIN, POLLOUT } from "../../uapi/poll.ts";
import { Session } from "../connection/session.ts";
import { Stall } from "../connection/stall.ts";
import type { Connection } from "../connection/connection.ts";
import type { TraceWriter } from "../../queues/trace-ring.ts";
import type { Service } from "../connection/service.ts";
import type { Awaited, Member } from "../wait/member.ts";
import type { ExportInfo } from "./export.ts";
import { Handshake, type Verdict } from "./handshake.ts";
import { type ClientLimits, HANDSHAKE_PENDING_MAX } from "./limits.ts";

export interface ClientContext {
  readonly service: Service;
  readonly served: ExportInfo;
  readonly limits: ClientLimits;
  /** Where its answered requests go. */
  readonly ring: TraceWriter;
  /** Gets a line when the client is cut off. */
  readonly log: (line: string) => void;
  /** There is something to do although the client's socket has no news. */
  readonly wake: () => void;
  /** Called once, before the client's socket is closed. */
  readonly gone: (client: Client) => void;
}

/** Bytes of a handshake received at once; what is left over fits a connection's request buffer. */
const HANDSHAKE_BYTES = 16 * 1024;
/** Every client's handshake is received to the same place: nothing stays there. */
const handshakeBytes = new Uint8Array(new ArrayBuffer(HANDSHAKE_BYTES));
const NOTHING = new Uint8Array();

export class Client implements Member {
  readonly fd: number;
  readonly #name: string;
  readonly #context: ClientContext;
  readonly #handshake: Handshake;
  /** Once the handshake is over. */
  #session: Session | undefined;
  /** Replies of the handshake that the socket has not accepted. */
  #unsent: Uint8Array = NOTHING;
  readonly #unsentStall = new Stall();
  readonly #since = performance.now();
  #isGone = false;
  /** Whether a step runs: a device may close its own server within one, which then takes effect after the step. */
  #isStepping = false;
  #wanted: "stop" | "leave" | undefined;
  /** Since when it has been idle, and the progress seen at that time. */
  #idleSince = this.#since;
  #progress = 0;

  /** @param fd a connected socket with time-outs for both directions; the client's from now on. */
  constructor(name: string, fd: number, context: ClientContext) {
    this.#name = name;
    this.fd = fd;
    this.#context = context;
    this.#handshake = new Handshake(context.served);
    // The first step sends it, and notices a client that has left by then.
    this.#unsent = this.#handshake.greeting();
  }

  get connection(): Connection | undefined {
    return this.#session?.connection;
  }

  get events(): number {
    if (this.#isGone) return 0;
    if (this.#unsent.length > 0) return POLLOUT;
    return this.#session?.events ?? POLLIN;
  }

  get isReady(): boolean {
    return this.#unsent.length === 0 && this.#session?.isReady === true;
  }

  get waitsForDevice(): boolean {
    return this.#session?.waitsForDevice === true;
  }

  step(limitMs: number): void {
    if (this.#isGone) return;
    this.#isStepping = true;
    try {
      if (!this.#sendUnsent()) return;
      if (this.#session === undefined) this.#negotiate();
      if (this.#unsent.length === 0) this.#session?.step(limitMs);
    } finally {
      this.#isStepping = false;
      if (this.#wanted === "leave") this.leave();
      else if (this.#wanted === "stop") this.stop();
    }
  }

  await(sleep: boolean): Awaited {
    if (this.#unsent.length > 0 || this.#session === undefined) return "elsewhere";
    return this.#session.await(sleep);
  }

  /** Takes no more requests; those in flight are answered, and what was answered is sent. */
  stop(): void {
    if (this.#isStepping) this.#wanted ??= "stop";
    else if (this.#session === undefined) this.leave();
    else this.#session.stop();
  }

  /** Cuts the client off, with a line in the log. */
  drop(reason: string): void {
    if (this.#isGone || this.#wanted === "leave") return;
    this.#context.log(`${this.#name} was cut off: ${reason}`);
    this.leave();
  }

  /** Closes the socket. */
  leave(): void {
    if (this.#isGone) return;
    if (this.#isStepping) {
      this.#wanted = "leave";
      return;
    }
    this.#isGone = true;
    this.#session?.leave();
    this.#context.gone(this);
    shutdownSending(this.fd);
    close(this.fd);
    this.connection?.close();
  }

  /** Cuts the client off if its time is up. Call it now and then. */
  checkTime(now: number): void {
    const { handshakeMs, stallMs } = this.#context.limits;
    const { connection } = this;
    if (connection === undefined) {
      if (now - this.#since >= handshakeMs) this.drop("its handshake took too long");
      return;
    }
    const unsent = this.#unsent.length;
    const isDeaf = this.#unsentStall.isOver(unsent > 0 ? 1 : -1, unsent, stallMs, false, now);
    if (isDeaf || this.#session?.isStuck(stallMs, now) === true)
      return this.drop("it stopped in the middle of a request or a reply, or is too slow");
    const isIdle = connection.held === 0 && connection.progress === this.#progress;
    this.#progress = connection.progress;
    if (!isIdle) this.#idleSince = now;
  }

  /** Milliseconds without a request; 0 for a client in its handshake, whose time is short anyway. */
  idleMs(now: number): number {
    const { connection } = this;
    const isIdle = connection?.held === 0 && connection.progress === this.#progress;
    return isIdle ? now - this.#idleSince : 0;
  }

  // --- the handshake ---

  #negotiate(): void {
    const received = receiveBytes(this.fd, handshakeBytes);
    if (received === -errno.EAGAIN || received === -errno.EINTR) return;
    if (received <= 0) return this.leave();
    const { reply, verdict, rest } = this.#handshake.push(handshakeBytes.subarray(0, received));
    this.#say(reply);
    if (verdict !== undefined) this.#decided(verdict, rest);
  }

  #decided(verdict: Verdict, rest: Uint8Array): void {
    if (this.#wanted === "leave") return;
    if (verdict.kind === "drop") return this.drop(verdict.reason);
    if (verdict.kind === "abort") return this.leave();
    const { structured, allocation } = verdict;
    const { service, ring, wake } = this.#context;
    try {
      const options = { name: this.#name, ring, structured, allocation, onNews: wake };
      this.#session = new Session(this.fd, service, options, () => this.#ended());
    } catch (error) {
      return this.drop(`there is no memory for it: ${messageOf(error)}`);
    }
    this.#session.connection.feed(rest);
    this.#idleSince = performance.now();
  }

  #say(bytes: Uint8Array): void {
    this.#unsent = this.#unsent.length === 0 ? bytes : Buffer.concat([this.#unsent, bytes]);
    this.#sendUnsent();
    if (this.#unsent.length > HANDSHAKE_PENDING_MAX)
      this.drop("it does not take the replies that it asks for");
  }

  /** Returns true when there is nothing left to send. */
  #sendUnsent(): boolean {
    if (this.#unsent.length === 0) return true;
    const sent = sendBytes(this.fd, this.#unsent);
    if (sent < 0 && sent !== -errno.EAGAIN && sent !== -errno.EINTR) this.leave();
    if (sent > 0) this.#unsent = this.#unsent.subarray(sent);
    return this.#unsent.length === 0;
  }

  // --- its end ---

  #ended(): void {
    const session = this.#session;
    if (this.#isGone || session === undefined) return;
    const { connection, ending } = session;
    if (connection.left > 0)
      this.#context.log(`${this.#name}: the device still has ${connection.left} of its requests`);
    if (ending === "broken" && !connection.peerIsGone) this.drop(connection.fault);
    else this.leave();
  }
}
