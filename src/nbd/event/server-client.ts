/** One client of a server: the handshake, then its requests, until it leaves or is cut off. */
import { EventConnection } from "./event-connection.ts";
import type { EventOptions, Outlet, Service } from "./event-types.ts";
import type { ExportInfo } from "../server/export.ts";
import { Handshake } from "../server/handshake.ts";
import { type ClientLimits, DRAIN_MS, HANDSHAKE_PENDING_MAX } from "../server/served-export.ts";
import type { StreamData, StreamHandler } from "./stream.ts";

export interface ClientContext {
  readonly service: Service;
  readonly served: ExportInfo;
  readonly limits: ClientLimits;
  readonly options: EventOptions;
  /** Gets a line when the client is cut off. */
  readonly log: (line: string) => void;
  /** Called once, when the client is gone for good. */
  readonly gone: (client: ServerClient) => void;
}

export class ServerClient implements StreamHandler, Outlet {
  connection: EventConnection | undefined;
  readonly #name: string;
  readonly #socket: Bun.Socket<StreamData | undefined>;
  readonly #context: ClientContext;
  readonly #handshake: Handshake;
  readonly #timer: Timer;
  /** Replies of the handshake that the socket has not taken. */
  #unsent: Uint8Array = new Uint8Array();
  /** When bytes last moved, by performance.now(). */
  #moved = performance.now();
  #isGone = false;

  constructor(name: string, socket: Bun.Socket<StreamData | undefined>, context: ClientContext) {
    this.#name = name;
    this.#socket = socket;
    this.#context = context;
    this.#handshake = new Handshake(context.served);
    this.#timer = setTimeout(() => this.drop("its handshake took too long"), context.limits.handshakeMs);
    this.#say(this.#handshake.greeting());
  }

  // --- the socket's news ---

  receive(chunk: Uint8Array): void {
    this.#moved = performance.now();
    if (this.#isGone) return;
    if (this.connection === undefined) this.#negotiate(chunk);
    else this.connection.receive(chunk);
  }

  drained(): void {
    this.#moved = performance.now();
    if (this.#sendUnsent()) this.connection?.drained();
  }

  ended(): void {
    if (this.connection === undefined) this.#leave();
    else this.connection.ended();
  }

  closed(): void {
    if (this.connection === undefined) this.#leave();
    else this.connection.closed();
  }

  // --- the connection's way out ---

  write(bytes: Uint8Array): number {
    if (!this.#sendUnsent()) return this.#isGone ? -1 : 0;
    return this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#moved = performance.now();
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  // --- the server's doing ---

  /** Cuts the client off, with a line in the log. */
  drop(reason: string): void {
    if (this.#isGone) return;
    this.#context.log(`${this.#name} was cut off: ${reason}`);
    this.terminate();
  }

  /** Cuts the client off. */
  terminate(): void {
    this.#socket.terminate();
    this.connection?.closed();
    if (this.connection === undefined) this.#leave();
  }

  /** Lets requests in flight end, and no others begin. */
  stop(): void {
    if (this.connection === undefined) this.terminate();
    else this.connection.stop();
  }

  /** Cuts the client off if it owes something and does not deliver. */
  checkStall(): void {
    if (performance.now() - this.#moved < this.#context.limits.stallMs) return;
    if (this.connection?.waitsForPeer === true) {
      const seconds = this.#context.limits.stallMs / 1000;
      this.drop(`it stopped in the middle of a request or a reply for ${seconds} s`);
    }
  }

  #negotiate(chunk: Uint8Array): void {
    const { reply, verdict, rest } = this.#handshake.push(chunk);
    this.#say(reply);
    if (verdict === undefined || this.#isGone) return;
    if (verdict.kind === "drop") return this.drop(verdict.reason);
    clearTimeout(this.#timer);
    if (verdict.kind === "abort") {
      this.#socket.end();
      return this.#leave();
    }
    const { structured, allocation } = verdict;
    const { service, options } = this.#context;
    this.connection = new EventConnection(this, service, { ...options, structured, allocation });
    void this.#follow(this.connection);
    if (rest.length > 0) this.connection.receive(rest);
  }

  async #follow(connection: EventConnection): Promise<void> {
    const { ending, left } = await connection.outcome(DRAIN_MS);
    if (ending === "broken") this.#context.log(`${this.#name} was cut off: ${connection.fault}`);
    if (left > 0) this.#context.log(`${this.#name}: the device still has ${left} of its requests`);
    this.#leave();
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
    const written = this.#socket.write(this.#unsent);
    if (written > 0) this.#unsent = this.#unsent.subarray(written);
    return this.#unsent.length === 0;
  }

  #leave(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    clearTimeout(this.#timer);
    this.#socket.end();
    this.#context.gone(this);
  }
}
