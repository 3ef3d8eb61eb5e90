/**
 * A device as an NBD server, on a Unix or a TCP socket: any number of clients, one device. No root and no driver are
 * needed. What a stranger can take is limited: connections, time, memory; whoever misbehaves is cut off with a line
 * in the log, and the others do not notice. This one runs on the event loop; its sibling for devices that answer at
 * once is tight-server.ts.
 */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import type { Statistics, Transport } from "../../transport.ts";
import { BufferPool } from "./buffer-pool.ts";
import type { Service } from "./event-types.ts";
import { cannotListen } from "../server/listener.ts";
import { RangeOrder } from "../../serving/range-order.ts";
import {
  addTo,
  KEEP_ALIVE_MS,
  limitsOf,
  MAX_CONNECTIONS,
  PAYLOAD_BYTES,
  servedExport,
  type ServerOptions,
  STALL_LOOKS,
} from "../server/served-export.ts";
import { type ClientContext, ServerClient } from "./server-client.ts";
import { type StreamData, streamCallbacks } from "./stream.ts";
import { type ServerTarget, targetUri } from "../server/target.ts";
import { claimSocketPath } from "../server/unix-listener.ts";

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
    const served = servedExport(target, dispatch, options);
    this.#exportName = served.name;
    this.#path = targetUri(target, served.name);
    const service: Service = { dispatch, order: new RangeOrder(), pool: new BufferPool(PAYLOAD_BYTES) };
    this.#context = {
      service,
      served,
      limits: limitsOf(options),
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
      throw cannotListen(host, port, whyNot(error), error);
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
