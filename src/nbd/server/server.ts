/**
 * A device as an NBD server for devices that answer at once: one thread serves all clients with tight connections
 * (connection.ts), and does nothing else but for short turns of the event loop. Its sibling on the event loop is
 * server.ts; what it promises to clients, and asks of them, is the same.
 *
 * A client that is alone is served as the kernel is, by a receive that waits. Several, and those who come and go,
 * are waited for by poll(2), and nobody waits for one of them.
 */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { close } from "../../libc/file.ts";
import { accept, setTcpOptions } from "../../libc/listen.ts";
import { PollTable } from "../../libc/poll.ts";
import { setReceiveTimeout, setSendBuffer, setSendTimeout } from "../../libc/socket.ts";
import { pushWakers, wakeFound } from "../../libc/waker.ts";
import type { Statistics, Transport } from "../../transport.ts";
import { errno } from "../../uapi/errno.ts";
import { POLLIN } from "../../uapi/poll.ts";
import { InFlight } from "../connection/deferred.ts";
import { letSettle } from "../wait/device-wait.ts";
import { type Listener, openListener } from "./listener.ts";
import {
  addTo,
  KEEP_ALIVE_MS,
  limitsOf,
  MAX_CONNECTIONS,
  PAYLOAD_BYTES,
  servedExport,
  type ServerOptions,
  STALL_LOOKS,
} from "./served-export.ts";
import { StagingBudget } from "../connection/staging.ts";
import { type ServerTarget, targetUri } from "./target.ts";
import { TightClient, type TightContext } from "./client.ts";
import { eventLoopTurn } from "../wait/turn.ts";
import { WarmUp } from "../connection/warm-up.ts";

/** How long a wait may be while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it may be otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;
/** The event loop gets its turn after this long, in milliseconds. */
const TURN_MS = 50;
/** For how long one of several clients is served before the next, in milliseconds. */
const SHARE_MS = 2;
/** What a client that is alone is waited for in a receive; then it is time to look for others. */
const ALONE_MS = 10;
/** What wakes devices is waited for beside the clients; more is left to the event loop. */
const WAKERS_MAX = 16;
/** How many connections are accepted before the clients get their turn. */
const ACCEPTED_AT_ONCE = 64;
/** How long no connection is accepted after that has failed, in milliseconds. */
const ACCEPT_AGAIN_MS = 1000;
/** What may be on its way to a client, in bytes: the replies to a deep queue of small reads. */
const SOCKET_BUFFER_BYTES = 2 ** 20;

export class TightServer implements Transport {
  watchful = true;
  readonly #target: ServerTarget;
  readonly #options: ServerOptions;
  readonly #dispatch: Dispatch;
  readonly #context: TightContext;
  readonly #lookMs: number;
  readonly #busyPollMs: number;
  readonly #maxConnections: number;
  readonly #table: PollTable;
  /** In the order in which they came. */
  readonly #clients: TightClient[] = [];
  /** Counts of the clients that are gone. */
  readonly #past = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  #path: string;
  #listener: Listener | undefined;
  #clientNumber = 0;
  /** The table's first entry of a waker. */
  #wakersAt = 0;
  #looked = performance.now();
  #acceptAfter = 0;
  #full = false;
  #stopping = false;
  #wasCut = false;

  /** @throws UserError when a name or description is too long. */
  constructor(target: ServerTarget, dispatch: Dispatch, options: ServerOptions = {}) {
    this.#target = target;
    this.#options = options;
    this.#dispatch = dispatch;
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    this.#busyPollMs = options.busyPollMs ?? 0;
    this.#table = new PollTable(this.#maxConnections + 1 + WAKERS_MAX);
    const served = servedExport(target, dispatch, options);
    const limits = limitsOf(options);
    this.#lookMs = Math.min(limits.stallMs, limits.handshakeMs) / STALL_LOOKS;
    this.#path = targetUri(target, served.name);
    this.#context = {
      dispatch,
      served,
      limits,
      options: {
        trace: options.trace,
        busyPollMs: options.busyPollMs,
        budget: new StagingBudget(PAYLOAD_BYTES),
        inFlight: new InFlight(),
      },
      log: (line) => options.log?.(line),
    };
  }

  /** The URI that a client on this machine connects to; the port is there once it listens. */
  get path(): string {
    return this.#path;
  }

  get requests(): number {
    return this.statistics.requests;
  }

  get statistics(): Statistics {
    const sum = { ...this.#past };
    for (const { connection } of this.#clients)
      if (connection !== undefined) addTo(sum, connection.statistics);
    return sum;
  }

  /**
   * Listens and serves until {@link detach}. `onReady` is called once it listens.
   * @throws UserError when it cannot listen, or was cut off.
   */
  async serve(onReady: () => void): Promise<void> {
    const listener = await openListener(this.#target);
    this.#listener = listener;
    this.#path = targetUri(listener.target, this.#context.served.name);
    try {
      const warmUp = this.#options.warmUp === true ? new WarmUp() : undefined;
      onReady();
      if (warmUp !== undefined) await this.#warmUp(warmUp);
      while (!this.#isOver) {
        this.#serveTurn();
        await eventLoopTurn();
      }
      if (this.#wasCut) throw new UserError(`${this.#path} was cut off before its requests were answered`);
      await this.#dispatch.flush();
    } finally {
      for (const client of this.#clients) client.leave();
      this.#stopListening();
    }
  }

  /** Takes no new clients and requests, sends what was answered, flushes: {@link serve} returns. */
  detach(): void {
    this.#stopping = true;
    this.#stopListening();
    for (const client of this.#clients) client.stop();
    this.#removeGone();
  }

  /** Cuts all clients off at once. */
  cut(): void {
    this.#wasCut = true;
    this.#stopping = true;
    this.#stopListening();
    for (const client of this.#clients) client.leave();
    this.#removeGone();
  }

  /** Until the first client comes, or a signal. */
  async #warmUp(warmUp: WarmUp): Promise<void> {
    this.#table.clear();
    if (this.#listener !== undefined) this.#table.push(this.#listener.fd, POLLIN);
    while (!this.#stopping && this.#table.wait(0) === 0 && warmUp.step()) await eventLoopTurn();
    warmUp.close();
  }

  get #isOver(): boolean {
    return this.#stopping && this.#clients.length === 0;
  }

  /** Serves until the event loop is due. */
  #serveTurn(): void {
    const until = performance.now() + TURN_MS;
    while (performance.now() < until) {
      if (!this.#serveWaiting()) break;
      const [only] = this.#clients;
      if (only !== undefined && this.#clients.length === 1 && this.#serveAlone(only)) break;
    }
    this.#look(performance.now());
  }

  /** Serves one client as long as it has something to say. Returns true when the event loop is due. */
  #serveAlone(client: TightClient): boolean {
    if (client.state === "serving") client.step(TURN_MS, true);
    this.#removeGone();
    return client.isBusy;
  }

  /** Waits for the clients and serves those who have something to do. Returns false if nobody had, or a signal came. */
  #serveWaiting(): boolean {
    const table = this.#table;
    const clients = this.#clients;
    const count = clients.length;
    const timeout = this.#fill();
    let found = table.wait(this.#busyPollMs > 0 ? 0 : timeout);
    if (found === 0 && this.#busyPollMs > 0) found = this.#busyWait(timeout);
    if (found < 0) return false;
    // The wakers come last: what they let settle is answered in this turn.
    if (wakeFound(table, this.#wakersAt) > 0) letSettle();
    let wasIdle = found === 0;
    for (let index = 0; index < count; index += 1) {
      const client = clients[index];
      if (client === undefined || (table.found(index) === 0 && !client.isReady)) continue;
      client.step(SHARE_MS, false);
      wasIdle = false;
    }
    if (this.#wakersAt > count && table.found(count) !== 0) this.#accept();
    this.#removeGone();
    return !wasIdle;
  }

  /** Asks over and over for a while, since waking up takes longer, before it waits. */
  #busyWait(timeout: number): number {
    const until = performance.now() + Math.min(timeout, this.#busyPollMs);
    while (performance.now() < until) {
      const found = this.#table.wait(0);
      if (found !== 0) return found;
    }
    return this.#table.wait(timeout);
  }

  /**
   * Puts everyone in the table who can be waited for, then the listener, then what wakes devices. Returns for how
   * long, in milliseconds.
   */
  #fill(): number {
    const table = this.#table;
    const clients = this.#clients;
    let timeout = Math.min(this.watchful ? ALERT_MS : IDLE_MS, this.#lookMs);
    table.clear();
    for (let index = 0; index < clients.length; index += 1) {
      const client = clients[index];
      if (client === undefined) continue;
      // An entry of -1 is passed over.
      table.push(client.isStarved ? -1 : client.fd, client.events);
      if (client.isBusy) timeout = 0;
      else if (client.isStarved || client.connection?.deferred) timeout = Math.min(timeout, ALERT_MS);
    }
    if (this.#listener !== undefined && performance.now() >= this.#acceptAfter)
      table.push(this.#listener.fd, POLLIN);
    this.#wakersAt = table.count;
    pushWakers(table);
    return timeout;
  }

  // --- clients that come and go ---

  #accept(): void {
    for (let taken = 0; taken < ACCEPTED_AT_ONCE && this.#listener !== undefined; taken += 1) {
      const { fd, address } = accept(this.#listener.fd);
      if (fd >= 0) this.#welcome(fd, address);
      else if (fd === -errno.EAGAIN) return;
      else if (fd !== -errno.EINTR && fd !== -errno.ECONNABORTED) return this.#acceptLater(-fd);
    }
  }

  #acceptLater(number: number): void {
    this.#context.log(`no client can be taken for now: ${errorText(number)}`);
    this.#acceptAfter = performance.now() + ACCEPT_AGAIN_MS;
  }

  #welcome(fd: number, address: string): void {
    if (this.#clients.length >= this.#maxConnections) {
      close(fd);
      if (!this.#full)
        this.#context.log(`there are ${this.#clients.length} clients: no more are taken for now`);
      this.#full = true;
      return;
    }
    this.#clientNumber += 1;
    const name = `client ${this.#clientNumber}${address === "" ? "" : ` (${address})`}`;
    setSendBuffer(fd, SOCKET_BUFFER_BYTES);
    setReceiveTimeout(fd, ALONE_MS);
    setSendTimeout(fd, ALONE_MS);
    if (this.#target.kind === "tcp") setTcpOptions(fd, KEEP_ALIVE_MS / 1000);
    this.#clients.push(new TightClient(name, fd, this.#context));
  }

  #removeGone(): void {
    const clients = this.#clients;
    for (let index = clients.length - 1; index >= 0; index -= 1) {
      const client = clients[index];
      if (client === undefined || client.state !== "gone") continue;
      if (client.connection !== undefined) addTo(this.#past, client.connection.statistics);
      clients.splice(index, 1);
      this.#full = false;
    }
  }

  /** Cuts off those whose time is up, and has memory given back: now and then, and at once when somebody needs it. */
  #look(now: number): void {
    const isDue = now - this.#looked >= this.#lookMs;
    if (!isDue && !this.#clients.some((client) => client.isStarved)) return;
    for (const client of this.#clients) {
      client.connection?.release();
      if (isDue) client.checkTime(now);
    }
    if (isDue) this.#looked = now;
    this.#removeGone();
  }

  #stopListening(): void {
    this.#listener?.close();
    this.#listener = undefined;
  }
}
