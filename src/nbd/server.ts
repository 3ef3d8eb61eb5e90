/**
 * A device as an NBD server, on a Unix or a TCP socket: any number of clients, one device. No root and no driver are
 * needed. What a stranger can take is limited: connections, time, memory; whoever misbehaves is cut off with a line
 * in the log, and the others do not notice.
 */
import type { Dispatch } from "../dispatch.ts";
import { UserError } from "../errors.ts";
import type { Statistics, Transport } from "../transport.ts";
import { BufferPool } from "./buffer-pool.ts";
import type { EventOptions, Service } from "./event-types.ts";
import { exportInfo, type ExportOptions } from "./export.ts";
import { NBD_MAX_STRING_SIZE } from "./proto.ts";
import { RangeOrder } from "../serving/range-order.ts";
import { type ClientContext, ServerClient } from "./server-client.ts";
import { type StreamData, streamCallbacks } from "./stream.ts";
import { type ServerTarget, targetUri } from "./target.ts";
import { claimSocketPath } from "./unix-listener.ts";

export interface ServerOptions extends ExportOptions, EventOptions {
  /** Clients at once. Default 128. */
  readonly maxConnections?: number | undefined;
  /** Milliseconds for a client's handshake. Default 10,000. */
  readonly handshakeMs?: number | undefined;
  /** Milliseconds after which a client that stopped in the middle is cut off. Default 30,000. */
  readonly stallMs?: number | undefined;
}

const MAX_CONNECTIONS = 128;
const HANDSHAKE_MS = 10_000;
const STALL_MS = 30_000;
/** How many times within the time for a stall it is looked for. */
const STALL_LOOKS = 4;
/** Payloads in memory for all clients together, in bytes: eight of the longest requests. */
const POOL_BYTES = 256 * 2 ** 20;
/** How long a dead TCP connection goes unnoticed, in milliseconds. */
const KEEP_ALIVE_MS = 60_000;

type Socket = Bun.Socket<StreamData | undefined>;
type Listener = Pick<Bun.SocketListener<StreamData | undefined>, "stop">;

export class NbdServer implements Transport {
  /** What {@link serve} does not touch in the interface: there is no loop to watch. */
  watchful = false;
  readonly #target: ServerTarget;
  readonly #options: ServerOptions;
  readonly #exportName: string;
  readonly #context: ClientContext;
  readonly #dispatch: Dispatch;
  readonly #clients = new Set<ServerClient>();
  readonly #ended = Promise.withResolvers<void>();
  /** Counts of the clients that are gone. */
  readonly #past = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  #path: string;
  #listener: Listener | undefined;
  #stalls: Timer | undefined;
  #clientNumber = 0;
  #full = false;
  #stopping = false;
  #wasCut = false;

  /** @throws UserError when a name or description is too long. */
  constructor(target: ServerTarget, dispatch: Dispatch, options: ServerOptions = {}) {
    this.#target = target;
    this.#dispatch = dispatch;
    this.#options = options;
    this.#exportName = options.exportName ?? target.exportName ?? "";
    checkLength("export name", this.#exportName);
    checkLength("description", options.description ?? "");
    this.#path = targetUri(target, this.#exportName);
    const service: Service = { dispatch, order: new RangeOrder(), pool: new BufferPool(POOL_BYTES) };
    this.#context = {
      service,
      served: exportInfo(dispatch, { exportName: this.#exportName, description: options.description }),
      limits: {
        handshakeMs: options.handshakeMs ?? HANDSHAKE_MS,
        stallMs: options.stallMs ?? STALL_MS,
      },
      options,
      log: (line) => options.log?.(line),
      gone: (client) => this.#gone(client),
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
    this.#listener = await this.#listen();
    try {
      this.#stalls = setInterval(() => this.#checkStalls(), this.#context.limits.stallMs / STALL_LOOKS);
      onReady();
      await this.#ended.promise;
      if (this.#wasCut) throw new UserError(`${this.#path} was cut off before its requests were answered`);
      await this.#dispatch.flush();
    } finally {
      clearInterval(this.#stalls);
      this.#listener.stop();
    }
  }

  /** Takes no new clients and requests, lets those in flight end, flushes: {@link serve} returns. */
  detach(): void {
    this.#stopping = true;
    this.#listener?.stop();
    for (const client of this.#clients) client.stop();
    this.#endIfDone();
  }

  /** Cuts all clients off at once. */
  cut(): void {
    this.#wasCut = true;
    this.#listener?.stop();
    for (const client of this.#clients) client.terminate();
    this.#ended.resolve();
  }

  async #listen(): Promise<Listener> {
    const target = this.#target;
    const shared = {
      data: undefined,
      allowHalfOpen: true,
      socket: { ...streamCallbacks, open: (socket: Socket) => this.#accept(socket) },
    };
    if (target.kind === "unix") {
      return claimSocketPath(target.path, () =>
        Bun.listen<StreamData | undefined>({ unix: target.path, ...shared }),
      );
    }
    const { host, port } = target;
    try {
      const listener = Bun.listen<StreamData | undefined>({
        hostname: host,
        port,
        exclusive: true,
        ...shared,
      });
      this.#path = targetUri({ ...target, port: listener.port }, this.#exportName);
      return listener;
    } catch (error) {
      throw new UserError(`cannot listen on ${host}, port ${port}: ${whyNot(error)}`, { cause: error });
    }
  }

  #accept(socket: Socket): void {
    const limit = this.#options.maxConnections ?? MAX_CONNECTIONS;
    if (this.#stopping || this.#clients.size >= limit) {
      if (!this.#full)
        this.#context.log(`there are ${this.#clients.size} clients: no more are taken for now`);
      this.#full = true;
      socket.terminate();
      return;
    }
    this.#clientNumber += 1;
    const name = `client ${this.#clientNumber}${socket.remoteAddress ? ` (${socket.remoteAddress})` : ""}`;
    if (this.#target.kind === "tcp") {
      socket.setNoDelay(true);
      socket.setKeepAlive(true, KEEP_ALIVE_MS);
    }
    const client = new ServerClient(name, socket, this.#context);
    this.#clients.add(client);
    socket.data = { handler: client };
  }

  #gone(client: ServerClient): void {
    if (!this.#clients.delete(client)) return;
    if (client.connection !== undefined) addTo(this.#past, client.connection.statistics);
    this.#full = false;
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#stopping && this.#clients.size === 0) this.#ended.resolve();
  }

  #checkStalls(): void {
    for (const client of this.#clients) client.checkStall();
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

function addTo(sum: Mutable<Statistics>, more: Statistics): void {
  sum.requests += more.requests;
  sum.errors += more.errors;
  sum.bytesRead += more.bytesRead;
  sum.bytesWritten += more.bytesWritten;
}

function checkLength(what: string, text: string): void {
  if (Buffer.byteLength(text) > NBD_MAX_STRING_SIZE) {
    throw new UserError(`the ${what} is too long: give at most ${NBD_MAX_STRING_SIZE} bytes`);
  }
}

function whyNot(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "EADDRINUSE":
      return "the port is in use, choose another";
    case "EACCES":
      return "permission denied, choose a port above 1023";
    default:
      return "no such address on this machine, give one that it has";
  }
}
