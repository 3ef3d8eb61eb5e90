/** The connection between the kernel and the server of a node, as the thread has it that answers its requests. */
import type { Dispatch } from "../../dispatch.ts";
import { unwrap } from "../../libc/errno.ts";
import { setReceiveTimeout } from "../../libc/socket.ts";
import { TraceWriter } from "../../queues/trace-ring.ts";
import { type RequestOptions, Service } from "../connection/service.ts";
import { type Ending, Session } from "../connection/session.ts";
import { Waiting, type WaitOptions } from "../wait/waiting.ts";

/** A connection, wherever it is served. */
export interface NodeConnection {
  /** Gets what it needs beside the socket. @throws Error when that is not to be had. */
  prepare(): Promise<void>;
  /** Serves until no more requests come, and all are answered. @throws Error when something else ends it. */
  serve(): Promise<ConnectionEnd>;
  /** True, as it is at first: the event loop is looked after every few milliseconds even when there is no request. */
  set watchful(on: boolean);
  /** Takes no more requests, and ends when it has answered those that it has. */
  stop(): void;
  /** Stops between two requests: settles when all that was begun is answered. What comes later stays in the socket. */
  pause(): Promise<void>;
  /** Goes on, also where it has not stopped yet. */
  resume(): void;
  /** What the device has not answered is not waited for any more. */
  leave(): void;
  /** To be called once it has ended, or is not to be served, or is not waited for any more. */
  close(): Promise<void>;
  /** Whether a thread may use the socket still. */
  readonly usesSocket: boolean;
}

export interface ConnectionOptions extends RequestOptions, WaitOptions {
  /** The device may hold swap: the driver sends little at once, and the memory for that is there from the start. */
  readonly swap?: boolean | undefined;
}

/** The longest request for swap, in bytes, and how many of each length there is memory for from the start. */
export const SWAP_REQUEST_BYTES = 128 * 1024;
const SWAP_REQUESTS = 32;

/** How a connection ended. */
export interface ConnectionEnd {
  readonly ending: Ending;
  /** What was wrong, if something was: see Connection. */
  readonly fault: string;
  /** How many requests the device still has, and never answered. */
  readonly left: number;
}

/** What a connection of a node's tells, and where it counts. */
export interface ConnectionContext {
  readonly counters: Float64Array;
  /** What is answered goes there. */
  readonly ring: SharedArrayBuffer;
  /** Called once, when no more requests come. @param asked the kernel asked for the end, with a DISC, or we did. */
  ending(asked: boolean): void;
}

/** Payloads in memory, in bytes. */
const PAYLOAD_BYTES = 64 * 2 ** 20;
/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;

export class KernelConnection implements NodeConnection {
  readonly usesSocket = false;
  readonly #fd: number;
  readonly #service: Service;
  readonly #session: Session;
  readonly #waiting: Waiting;

  /** @param fd this end of the stream; still the caller's. @throws ErrnoError */
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
    // What the kernel has not got an answer to when it disconnects may be data: how long that is waited for is not
    // for the connection to say.
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

  /** Never from within a step of the session's, which runs what has been waiting for a promise. */
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
