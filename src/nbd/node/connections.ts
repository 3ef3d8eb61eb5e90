/**
 * The connections of a node: one, which the main thread serves, or several, each with a thread of its own. The kernel
 * makes a hardware queue for each. They begin and end together: without one of them the others are useless, because the
 * requests that the kernel gave to it would wait for their time-out, or for ever.
 */
import type { Dispatch } from "../../dispatch.ts";
import { close } from "../../libc/file.ts";
import { shutdown } from "../../libc/socket.ts";
import { makeCounters, sumCounters } from "../../queues/counters.ts";
import { makeQueueRing } from "../../queues/trace-ring.ts";
import type { Statistics } from "../../transport.ts";
import type { Ending } from "../connection/session.ts";
import { ConnectionThread } from "./connection-thread.ts";
import {
  type ConnectionEnd,
  type ConnectionOptions,
  KernelConnection,
  type NodeConnection,
} from "./kernel-connection.ts";

/** The longest time of a timer. */
const ANCHOR_MS = 2 ** 31 - 1;

export class NodeConnections {
  /** Called at least once, when no more requests will arrive. */
  onEnding: (() => void) | undefined;
  readonly #connections: NodeConnection[] = [];
  /** See Transport. */
  readonly traceRings: SharedArrayBuffer[] = [];
  readonly #counters: Float64Array<SharedArrayBuffer>[] = [];
  readonly #sockets: readonly number[];
  #anchor: Timer | undefined;
  #isClosed = false;

  /**
   * @param sockets our ends of the streams: they remain the caller's if this throws, else are closed at the end.
   * @throws ErrnoError if memory is short.
   */
  constructor(sockets: readonly number[], dispatch: Dispatch, options: ConnectionOptions) {
    this.#sockets = sockets;
    for (const fd of sockets) this.#add(fd, dispatch, options);
  }

  get ledgers(): readonly Float64Array[] {
    return this.#counters;
  }

  get statistics(): Statistics {
    return sumCounters(this.#counters);
  }

  /** See Transport. */
  set watchful(on: boolean) {
    if (!this.#isClosed) for (const connection of this.#connections) connection.watchful = on;
  }

  /** Prepares what they need. @throws Error if something is unavailable. */
  async prepare(): Promise<void> {
    // With only threads to wait for, the runtime would not sleep but check for its end over and over.
    if (this.#connections.length > 1) this.#anchor = setInterval(() => undefined, ANCHOR_MS);
    for (const connection of this.#connections) await connection.prepare();
  }

  /**
   * Serves until all of them have ended: if one fails, or ends without the kernel's request, all do. Returns the end of
   * one that ended irregularly, if there is one.
   * @throws Error if one has failed.
   */
  async serve(): Promise<ConnectionEnd> {
    const ends: ConnectionEnd[] = [];
    const running = this.#connections.map(async (connection) => {
      try {
        ends.push(await connection.serve());
      } catch (error) {
        this.shutDown();
        this.leave();
        throw error;
      }
    });
    const failure = (await Promise.allSettled(running)).find(({ status }) => status === "rejected");
    if (failure?.status === "rejected") throw failure.reason;
    const ended = (isIt: (ending: Ending) => boolean): ConnectionEnd | undefined =>
      ends.find(({ ending }) => isIt(ending));
    // The others have ended because of it.
    const first = ended((how) => how === "broken") ?? ended((how) => how !== "disconnect") ?? ends[0];
    const { ending = "closed", fault = "" } = first ?? {};
    return { ending, fault, left: ends.reduce((sum, { left }) => sum + left, 0) };
  }

  /** Ends the streams: no more requests will arrive. */
  shutDown(): void {
    if (!this.#isClosed) for (const fd of this.#sockets) shutdown(fd);
  }

  /** Takes no more requests, and ends when those taken are answered. */
  stop(): void {
    for (const connection of this.#connections) connection.stop();
  }

  /** Stops between two requests: settles when all those begun are answered. Later ones stay in the sockets. */
  async pause(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.pause()));
  }

  /** Continues, even if not all have stopped. */
  resume(): void {
    for (const connection of this.#connections) connection.resume();
  }

  /** Stops waiting for answers of the device. */
  leave(): void {
    for (const connection of this.#connections) connection.leave();
  }

  /** Call it once they have ended, or will not be served. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#anchor);
    await Promise.all(this.#connections.map((connection) => connection.close()));
    // A thread that returns late from a call of the device must not find another file under this descriptor.
    for (const [index, fd] of this.#sockets.entries())
      if (this.#connections[index]?.usesSocket !== true) close(fd);
  }

  #add(fd: number, dispatch: Dispatch, options: ConnectionOptions): void {
    const counters = makeCounters();
    this.#counters.push(counters);
    const ring = makeQueueRing(options.swap === true);
    this.traceRings.push(ring);
    const ending = (asked: boolean): void => {
      if (!asked) this.shutDown();
      this.onEnding?.();
    };
    this.#connections.push(
      this.#sockets.length > 1
        ? new ConnectionThread(fd, dispatch, options, { counters, ring, ending })
        : new KernelConnection(fd, dispatch, options, { counters, ring, ending }),
    );
  }
}
