/** The connection between the kernel and the server of a node, on the thread that answers its requests. */
import type { Dispatch } from "../../dispatch.ts";
import { unwrap } from "../../libc/errno.ts";
import { setReceiveTimeout } from "../../libc/socket.ts";
import { TraceWriter } from "../../queues/trace-ring.ts";
import { type RequestOptions, Service } from "../connection/service.ts";
import { type Ending, Session } from "../connection/session.ts";
import { Waiting, type WaitOptions } from "../wait/waiting.ts";

/** A connection, wherever it is served. */
export interface NodeConnection {
  /** Prepares what it needs besides the socket. @throws Error if something is unavailable. */
  prepare(): Promise<void>;
  /** Serves until no more requests arrive and all are answered. @throws Error if something else ends it. */
  serve(): Promise<ConnectionEnd>;
  /** If true, the default, the event loop gets a turn every few milliseconds even without requests. */
  set watchful(on: boolean);
  /** Takes no more requests, and ends when it has answered those that it has. */
  stop(): void;
  /** Stops between two requests: settles when all those begun are answered. Later ones stay in the socket. */
  pause(): Promise<void>;
  /** Continues, even if it has not stopped yet. */
  resume(): void;
  /** Stops waiting for answers of the device. */
  leave(): void;
  /** Call it once it has ended, or will not be served, or nobody waits for it any more. */
  close(): Promise<void>;
  /** Whether a thread may still use the socket. */
  readonly usesSocket: boolean;
}

export interface ConnectionOptions extends RequestOptions, WaitOptions {
  /** The device may hold swap: the driver sends little at once, and the memory for it is allocated at the start. */
  readonly swap?: boolean | undefined;
}

/** The longest request for swap, in bytes, and the number of buffers of each length allocated at the start. */
export const SWAP_REQUEST_BYTES = 128 * 1024;
const SWAP_REQUESTS = 32;

/** How a connection ended. */
export interface ConnectionEnd {
  readonly ending: Ending;
  /** The fault, if there was one: see Connection. */
  readonly fault: string;
  /** How many requests the device never answered. */
  readonly left: number;
}

/** What a connection of a node reports, and where it counts. */
export interface ConnectionContext {
  readonly counters: Float64Array;
  /** Where its answered requests go. */
  readonly ring: SharedArrayBuffer;
  /** Called once, when no more requests arrive. @param asked the kernel asked for the end, with a DISC, or we did. */
  ending(asked: boolean): void;
}

/** Payloads in memory, in bytes. */
const PAYLOAD_BYTES = 64 * 2 ** 20;
/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, unless it arrives just before the wait. */
const IDLE_MS = 500;

export class KernelConnection implements NodeConnection {
  readonly usesSocket = false;
  readonly #fd: number;
  readonly #service: Service;
  readonly #session: Session;
  readonly #waiting: Waiting;

  /** @param fd this end of the stream, which remains the caller's. @throws ErrnoError */
  constructor(fd: number, dispatch: Dispatch, options: ConnectionOptions, context: ConnectionContext) {
    this.#fd = fd;
    unwrap(setReceiveTimeout(fd, ALERT_MS), "setsockopt(SO_RCVTIMEO)");
    this.#waiting = new Waiting(options);
    const onNews = (): void => this.#waiting.wake();
    const { counters } = context;
    this.#service = new Service(dispatch, options, PAYLOAD_BYTES, 1, counters);
    if (options.swap === true)
      this.#service.pool.fill(options.queueDepth ?? SWAP_REQUESTS, SWAP_REQUEST_BYTES);
    const ring = new TraceWriter(context.ring);
    try {
      this.#session = new Session(fd, this.#service, { onNews, counters, ring }, () => this.#waiting.stop());
    } catch (error) {
      this.#service.close();
      throw error;
    }
    // Requests without an answer when the kernel disconnects may hold data: the connection must not decide how long to
    // wait for them.
    this.#session.isPatient = true;
    this.#session.onEnd = () => context.ending(isAsked(this.#session.ending));
    this.#waiting.add(this.#session);
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  async serve(): Promise<ConnectionEnd> {
    await this.#waiting.run();
    const { connection, ending = "closed" } = this.#session;
    return { ending, fault: connection.fault, left: connection.left };
  }

  set watchful(on: boolean) {
    this.#waiting.watchful = on;
    setReceiveTimeout(this.#fd, on ? ALERT_MS : IDLE_MS);
  }

  stop(): void {
    this.#between(() => this.#session.stop());
  }

  pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#between(() => this.#session.pause(resolve));
    return promise;
  }

  resume(): void {
    this.#between(() => this.#session.resume());
  }

  /** Runs `change` outside of a step of the session, because a step runs the continuations of promises. */
  #between(change: () => void): void {
    setImmediate(() => {
      change();
      this.#waiting.wake();
    });
  }

  leave(): void {
    this.#session.leave();
  }

  close(): Promise<void> {
    this.#waiting.remove(this.#session);
    this.#session.connection.close();
    this.#service.close();
    return Promise.resolve();
  }
}

function isAsked(ending: Ending | undefined): boolean {
  return ending === "disconnect" || ending === "stopped";
}
