/**
 * The two ways to serve one end of a socket pair whose other end is the kernel's. The tight pump owns the thread,
 * but for turns of the event loop; the event pump is woken by the event loop, which is free for everything else.
 */
import type { Dispatch } from "../../dispatch.ts";
import { unwrap } from "../../libc/errno.ts";
import { duplicate } from "../../libc/file.ts";
import { setReceiveTimeout } from "../../libc/socket.ts";
import { BufferPool } from "../event/buffer-pool.ts";
import { Connection } from "../connection/connection.ts";
import { EventConnection } from "../event/event-connection.ts";
import type { Ending, EventOptions } from "../event/event-types.ts";
import type { Statistics } from "../../transport.ts";
import { RangeOrder } from "../../serving/range-order.ts";
import { serveSocket } from "../event/stream.ts";
import { eventLoopTurn } from "./turn.ts";

export type PumpKind = "tight" | "event";

export interface Pump {
  readonly statistics: Statistics;
  /** Why the connection is broken, once it is. */
  readonly fault: string;
  /** Serves until the connection ends. */
  run(): Promise<Ending>;
  /** While true the loop looks at the event loop every few milliseconds, even when it is idle. */
  watch(on: boolean): void;
  /** The socket has been shut down: {@link run} is to return even if it has stopped reading. */
  cut(): void;
  /** Gives the buffers back. The socket stays open. */
  close(): void;
}

/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;
/** How long requests in flight hold up the end, in milliseconds. */
const DRAIN_MS = 10_000;
/** How long what is still in the socket gets to be read once that is shut down, in milliseconds. */
const CUT_MS = 1000;
/** Payloads in memory, in bytes. */
const POOL_BYTES = 64 * 2 ** 20;

export function makePump(kind: PumpKind, socket: number, dispatch: Dispatch, options: EventOptions): Pump {
  return kind === "tight"
    ? new TightPump(socket, dispatch, options)
    : new EventPump(socket, dispatch, options);
}

class TightPump implements Pump {
  readonly #socket: number;
  readonly #connection: Connection;
  readonly #log: EventOptions["log"];

  constructor(socket: number, dispatch: Dispatch, options: EventOptions) {
    this.#socket = socket;
    this.#log = options.log;
    unwrap(setReceiveTimeout(socket, ALERT_MS), "setsockopt(SO_RCVTIMEO)");
    this.#connection = new Connection(socket, dispatch, {
      trace: options.trace,
      busyPollMs: options.busyPollMs,
    });
  }

  get statistics(): Statistics {
    return this.#connection.statistics;
  }

  get fault(): string {
    return this.#connection.fault;
  }

  async run(): Promise<Ending> {
    for (;;) {
      const outcome = this.#connection.run();
      if (outcome !== "turn") return this.#drain(outcome);
      await eventLoopTurn();
    }
  }

  /** Answers what the device still has. */
  async #drain(ending: Ending): Promise<Ending> {
    const until = performance.now() + DRAIN_MS;
    while (!this.#connection.flush() && performance.now() < until) await Bun.sleep(1);
    const left = this.#connection.deferred;
    if (left > 0) this.#log?.(`the device still has ${left} requests that it never answered`);
    return ending;
  }

  watch(on: boolean): void {
    setReceiveTimeout(this.#socket, on ? ALERT_MS : IDLE_MS);
  }

  cut(): void {
    // A receive returns at once.
  }

  close(): void {
    this.#connection.close();
  }
}

class EventPump implements Pump {
  readonly #socket: number;
  readonly #dispatch: Dispatch;
  readonly #options: EventOptions;
  #connection: EventConnection | undefined;
  #cutTimer: Timer | undefined;

  constructor(socket: number, dispatch: Dispatch, options: EventOptions) {
    this.#socket = socket;
    this.#dispatch = dispatch;
    this.#options = options;
  }

  get statistics(): Statistics {
    return this.#connection?.statistics ?? { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  }

  get fault(): string {
    return this.#connection?.fault ?? "";
  }

  async run(): Promise<Ending> {
    const service = {
      dispatch: this.#dispatch,
      order: new RangeOrder(),
      pool: new BufferPool(POOL_BYTES),
    };
    // The runtime closes what it is given, and may do so at any time: the number must stay ours.
    const fd = unwrap(duplicate(this.#socket), "fcntl(F_DUPFD_CLOEXEC)");
    const { connection, close } = await serveSocket(
      fd,
      (outlet) => new EventConnection(outlet, service, this.#options),
    );
    this.#connection = connection;
    const { ending, left } = await connection.outcome(DRAIN_MS);
    if (left > 0) this.#options.log?.(`the device still has ${left} requests that it never answered`);
    close();
    return ending;
  }

  watch(): void {
    // The event loop is always looked after.
  }

  cut(): void {
    this.#cutTimer ??= setTimeout(() => this.#connection?.closed(), CUT_MS);
  }

  close(): void {
    clearTimeout(this.#cutTimer);
  }
}
