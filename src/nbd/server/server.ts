/**
 * Serves a device as an NBD server, on a Unix or TCP socket: one device, any number of clients. It needs neither root
 * nor a driver. It limits what a stranger can use: connections, time, memory. A client that misbehaves is cut off with
 * a line in the log, and the others do not notice.
 */
import type { Dispatch } from "../../dispatch.ts";
import type { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { close } from "../../libc/file.ts";
import { accept, setTcpOptions } from "../../libc/listen.ts";
import { PollTable } from "../../libc/poll.ts";
import { setReceiveTimeout, setSendBuffer } from "../../libc/socket.ts";
import { makeQueueRing, TraceWriter } from "../../queues/trace-ring.ts";
import { addStatistics, type End, type Statistics, type Transport } from "../../transport.ts";
import { errno } from "../../uapi/errno.ts";
import { POLLIN } from "../../uapi/poll.ts";
import { Service } from "../connection/service.ts";
import { WarmUp } from "../connection/warm-up.ts";
import { eventLoopTurn } from "../wait/event-loop.ts";
import type { Member } from "../wait/member.ts";
import { Waiting } from "../wait/waiting.ts";
import { Client, type ClientContext } from "./client.ts";
import { servedExport } from "./export.ts";
import {
  KEEP_ALIVE_MS,
  limitsOf,
  LOOKS,
  MAX_CONNECTIONS,
  PAYLOAD_BYTES,
  type ServerOptions,
} from "./limits.ts";
import { type Listener, openListener } from "./listener.ts";
import { type ServerTarget, targetUri } from "./target.ts";

/** How long to wait for the only client in a receive before looking for others, in milliseconds. */
const ALONE_MS = 10;
/** How many connections to accept before serving the clients. */
const ACCEPTED_AT_ONCE = 64;
/** The pause after accepting a connection has failed, in milliseconds. */
const ACCEPT_AGAIN_MS = 1000;
/** The size of a client's send buffer, in bytes: it holds the replies to a deep queue of small reads. */
const SOCKET_BUFFER_BYTES = 2 ** 20;

export class NbdServer implements Transport {
  /** One ring, because one thread serves all clients. */
  readonly traceRings: readonly SharedArrayBuffer[];
  readonly #target: ServerTarget;
  readonly #options: ServerOptions;
  readonly #dispatch: Dispatch;
  readonly #context: ClientContext;
  readonly #waiting: Waiting;
  readonly #maxConnections: number;
  /** In the order in which they connected. */
  readonly #clients = new Set<Client>();
  /** The counts of clients that have disconnected. */
  readonly #past = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  #path: string;
  #listener: (Listener & Member) | undefined;
  #acceptTimer: Timer | undefined;
  #clientNumber = 0;
  #isFull = false;
  #stopping = false;
  #cutFor: UserError | undefined;

  /** @throws UserError if a name or description is too long. */
  constructor(target: ServerTarget, dispatch: Dispatch, options: ServerOptions = {}) {
    this.#target = target;
    this.#options = options;
    this.#dispatch = dispatch;
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    this.#waiting = new Waiting(options);
    const served = servedExport(target, dispatch, options);
    this.#path = targetUri(target, served.name);
    const ring = makeQueueRing(false);
    this.traceRings = [ring];
    this.#context = {
      service: new Service(dispatch, options, PAYLOAD_BYTES, this.#maxConnections),
      served,
      ring: new TraceWriter(ring),
      limits: limitsOf(options),
      log: (line) => options.log?.(line),
      wake: () => this.#waiting.wake(),
      gone: (client) => this.#gone(client),
    };
  }

  /** The URI for clients on this machine; it has the port once the server listens. */
  get path(): string {
    return this.#path;
  }

  get requests(): number {
    return this.statistics.requests;
  }

  get statistics(): Statistics {
    const sum = { ...this.#past };
    for (const { connection } of this.#clients)
      if (connection !== undefined) addStatistics(sum, connection.statistics);
    return sum;
  }

  get ledgers(): readonly Float64Array[] {
    return [this.#context.service.cells];
  }

  get inFlight(): number {
    let count = 0;
    for (const { connection } of this.#clients) count += connection?.held ?? 0;
    return count;
  }

  set watchful(on: boolean) {
    this.#waiting.watchful = on;
  }

  /**
   * Listens and serves until {@link detach}. Calls `onReady` when it listens.
   * @throws UserError if it cannot listen, or was cut off.
   */
  async serve(onReady: () => void, end: End): Promise<void> {
    const { limits, served, service } = this.#context;
    const lookMs = Math.min(limits.handshakeMs, limits.stallMs, limits.idleMs) / LOOKS;
    const looks = setInterval(() => this.#look(), lookMs);
    try {
      const listener = await openListener(this.#target);
      if (this.#cutFor !== undefined) listener.close();
      if (this.#cutFor !== undefined) throw this.#cutFor;
      this.#path = targetUri(listener.target, served.name);
      this.#listen(listener);
      const warmUp = this.#options.warmUp === true ? new WarmUp() : undefined;
      onReady();
      if (warmUp !== undefined) await this.#warmUp(warmUp, listener.fd);
      await this.#waiting.run();
      if (this.#cutFor !== undefined) throw this.#cutFor;
      await end.flush(this.#dispatch);
    } finally {
      clearInterval(looks);
      this.#leaveAll();
      service.close();
    }
  }

  checkResizable(): void {
    // Later clients are told the size of that moment.
  }

  showSize(): void {
    // The protocol has no way to tell connected clients.
  }

  /** Takes no more clients and requests, answers requests in flight, and flushes: {@link serve} returns. */
  detach(): void {
    this.#stopping = true;
    this.#stopListening();
    for (const client of this.#clients) client.stop();
    this.#waiting.wake();
    this.#stopIfDone();
  }

  /** Cuts all clients off at once. */
  cut(reason: UserError): void {
    this.#cutFor ??= reason;
    this.#leaveAll();
  }

  #leaveAll(): void {
    this.#stopping = true;
    this.#stopListening();
    for (const client of this.#clients) client.leave();
    this.#stopIfDone();
  }

  /** Warms up until the first client connects, or a signal arrives. */
  async #warmUp(warmUp: WarmUp, fd: number): Promise<void> {
    const table = new PollTable(1);
    table.push(fd, POLLIN);
    while (!this.#stopping && table.wait(0) === 0 && warmUp.step()) await eventLoopTurn();
    warmUp.close();
  }

  /** Called now and then: cuts off clients whose time is up, and gives memory back. */
  #look(): void {
    const now = performance.now();
    for (const client of this.#clients) client.checkTime(now);
    this.#context.service.pool.rest();
  }

  // --- clients that come and go ---

  #listen(listener: Listener): void {
    this.#listener = {
      ...listener,
      events: POLLIN,
      isReady: false,
      waitsForDevice: false,
      step: () => this.#accept(listener.fd),
    };
    this.#waiting.add(this.#listener);
  }

  #accept(listener: number): void {
    for (let taken = 0; taken < ACCEPTED_AT_ONCE && this.#listener !== undefined; taken += 1) {
      const { fd, address } = accept(listener);
      if (fd >= 0) this.#welcome(fd, address);
      else if (fd === -errno.EAGAIN) return;
      else if (fd !== -errno.EINTR && fd !== -errno.ECONNABORTED) return this.#acceptLater(-fd);
    }
  }

  #acceptLater(number: number): void {
    const listener = this.#listener;
    if (listener === undefined) return;
    this.#context.log(`no client can be taken for now: ${errorText(number)}`);
    this.#waiting.remove(listener);
    this.#acceptTimer = setTimeout(() => this.#waiting.add(listener), ACCEPT_AGAIN_MS);
  }

  #welcome(fd: number, address: string): void {
    if (this.#clients.size >= this.#maxConnections) this.#makeRoom();
    if (this.#clients.size >= this.#maxConnections) {
      close(fd);
      if (!this.#isFull)
        this.#context.log(`there are ${this.#clients.size} clients: no more are taken for now`);
      this.#isFull = true;
      return;
    }
    this.#clientNumber += 1;
    const name = `client ${this.#clientNumber}${address === "" ? "" : ` (${address})`}`;
    setSendBuffer(fd, SOCKET_BUFFER_BYTES);
    setReceiveTimeout(fd, ALONE_MS);
    if (this.#target.kind === "tcp") setTcpOptions(fd, KEEP_ALIVE_MS / 1000);
    const client = new Client(name, fd, this.#context);
    this.#clients.add(client);
    this.#waiting.add(client);
  }

  /** Cuts off the client that has been idle the longest, if that is long enough. */
  #makeRoom(): void {
    const now = performance.now();
    let idlest: Client | undefined;
    for (const client of this.#clients) if (client.idleMs(now) > (idlest?.idleMs(now) ?? 0)) idlest = client;
    const idleMs = idlest?.idleMs(now) ?? 0;
    if (idleMs < this.#context.limits.idleMs) return;
    idlest?.drop(`it has asked for nothing for ${Math.floor(idleMs / 1000)} s, and its place was needed`);
  }

  #gone(client: Client): void {
    this.#waiting.remove(client);
    if (!this.#clients.delete(client)) return;
    if (client.connection !== undefined) addStatistics(this.#past, client.connection.statistics);
    this.#isFull = false;
    this.#stopIfDone();
  }

  // --- the end ---

  #stopIfDone(): void {
    if (this.#stopping && this.#clients.size === 0) this.#waiting.stop();
  }

  #stopListening(): void {
    clearTimeout(this.#acceptTimer);
    if (this.#listener === undefined) return;
    this.#waiting.remove(this.#listener);
    this.#listener.close();
    this.#listener = undefined;
  }
}
