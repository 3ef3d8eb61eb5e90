/** One client of the tight server: the handshake, then its requests, until it leaves or is cut off. */
import type { Dispatch } from "../../dispatch.ts";
import { messageOf } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { receiveBytes, sendBytes, shutdownSending } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { POLLIN, POLLOUT } from "../../uapi/poll.ts";
import { Connection } from "../connection/connection.ts";
import type { ConnectionOptions } from "../connection/types.ts";
import type { ExportInfo } from "./export.ts";
import { Handshake, type Verdict } from "./handshake.ts";
import { type ClientLimits, DRAIN_MS, HANDSHAKE_PENDING_MAX } from "./served-export.ts";

export interface TightContext {
  readonly dispatch: Dispatch;
  readonly served: ExportInfo;
  readonly limits: ClientLimits;
  /** For every connection; what the handshake has agreed on comes to it. */
  readonly options: ConnectionOptions;
  /** Gets a line when the client is cut off. */
  readonly log: (line: string) => void;
}

/** Bytes of a handshake received at once; what is left over fits a connection's request buffer. */
const HANDSHAKE_BYTES = 16 * 1024;
/** Every client's handshake is received to the same place: nothing stays there. */
const handshakeBytes = new Uint8Array(new ArrayBuffer(HANDSHAKE_BYTES));
const NOTHING = new Uint8Array();

/**
 * `handshake`, then `serving`; `draining`: it takes what it is owed, and is asked nothing more; `gone`: its socket is
 * closed.
 */
type State = "handshake" | "serving" | "draining" | "gone";

export class TightClient {
  state: State = "handshake";
  connection: Connection | undefined;
  readonly fd: number;
  readonly #name: string;
  readonly #context: TightContext;
  readonly #handshake: Handshake;
  /** Replies of the handshake that the socket has not taken. */
  #unsent: Uint8Array = NOTHING;
  /** When bytes last moved, and when the state began, by performance.now(). */
  #moved = performance.now();
  #since = this.#moved;

  /** @param fd a connected socket with time-outs for both directions; the client's from now on. */
  constructor(name: string, fd: number, context: TightContext) {
    this.#name = name;
    this.fd = fd;
    this.#context = context;
    this.#handshake = new Handshake(context.served);
    this.#say(this.#handshake.greeting());
  }

  /** What is to be waited for before {@link step} is called: POLL flags; 0 for its end alone. */
  get events(): number {
    if (this.#unsent.length > 0) return POLLOUT;
    if (this.state === "draining") return this.connection?.hasReplies === true ? POLLOUT : 0;
    switch (this.connection?.waitsFor) {
      case "output":
        return POLLOUT;
      case "memory":
      case "device":
        return 0;
      default:
        return POLLIN;
    }
  }

  /** Whether there may be something to do at once. */
  get isBusy(): boolean {
    return this.state === "serving" && this.connection?.waitsFor === "nothing";
  }

  /** Whether it is worth a try though the socket has no news. */
  get isReady(): boolean {
    if (this.state === "draining") return true;
    return this.isStarved || (this.state === "serving" && this.connection?.isReady === true);
  }

  /** Whether there is a request that waits for memory. */
  get isStarved(): boolean {
    return this.state === "serving" && this.connection?.waitsFor === "memory";
  }

  /**
   * Does what there is to do, for up to `limitMs` if it is serving.
   * @param wait the socket may be waited for.
   */
  step(limitMs: number, wait: boolean): void {
    if (!this.#sendUnsent()) return;
    if (this.state === "handshake") this.#negotiate();
    else if (this.state === "draining") this.#drain();
    else if (this.connection !== undefined) this.#serve(this.connection, limitMs, wait);
  }

  /** Takes no more requests; what was answered is sent. */
  stop(): void {
    if (this.state === "handshake") this.leave();
    else if (this.state === "serving") this.#beginToDrain();
  }

  /** Cuts the client off, with a line in the log. */
  drop(reason: string): void {
    if (this.state === "gone") return;
    this.#context.log(`${this.#name} was cut off: ${reason}`);
    this.leave();
  }

  /** Closes the socket. */
  leave(): void {
    if (this.state === "gone") return;
    this.state = "gone";
    shutdownSending(this.fd);
    close(this.fd);
    this.connection?.close();
  }

  /** Cuts the client off if its time is up. */
  checkTime(now: number): void {
    const { handshakeMs, stallMs } = this.#context.limits;
    const waited = now - this.#since;
    if (this.state === "handshake" && waited >= handshakeMs) this.drop("its handshake took too long");
    else if (this.state === "draining" && waited >= DRAIN_MS) this.leave();
    else if (this.state !== "gone" && now - this.#moved >= stallMs && this.#owes())
      this.drop(`it stopped in the middle of a request or a reply for ${stallMs / 1000} s`);
  }

  /** Whether it owes us something: the rest of a request, or the taking of replies. */
  #owes(): boolean {
    const { connection } = this;
    if (connection === undefined) return false;
    return connection.hasReplies || (connection.waitsFor === "input" && connection.midRequest);
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
    if (this.state === "gone") return;
    if (verdict.kind === "drop") return this.drop(verdict.reason);
    if (verdict.kind === "abort") return this.leave();
    const { structured, allocation } = verdict;
    try {
      this.#begin({ ...this.#context.options, structured, allocation }, rest);
    } catch (error) {
      this.drop(`there is no memory for it: ${messageOf(error)}`);
    }
  }

  /** @throws ErrnoError ENOMEM */
  #begin(options: ConnectionOptions, rest: Uint8Array): void {
    this.connection = new Connection(this.fd, this.#context.dispatch, options);
    this.connection.feed(rest);
    this.state = "serving";
    this.#moved = performance.now();
    if (rest.length > 0) this.connection.waitsFor = "nothing";
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

  // --- requests ---

  #serve(connection: Connection, limitMs: number, wait: boolean): void {
    const before = connection.progress;
    connection.mayWait = wait;
    const outcome = connection.run(limitMs);
    if (connection.progress !== before) this.#moved = performance.now();
    if (connection.peerIsGone) this.leave();
    else if (outcome === "broken") this.drop(connection.fault);
    else if (outcome !== "turn") this.#beginToDrain();
  }

  #beginToDrain(): void {
    this.state = "draining";
    this.#since = performance.now();
    this.#drain();
  }

  #drain(): void {
    if (this.connection === undefined || this.connection.flush()) this.leave();
  }
}
