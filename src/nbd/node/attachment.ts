/**
 * A device on /dev/nbdN: serve, take down.
 *
 * The main thread runs the request loop on one end of a socket pair; a link holds the other end in the kernel. A worker
 * does what must not be done by the thread that answers the requests: it opens the node to have its partitions found,
 * and it flushes and disconnects it.
 */
import { within } from "../../serving/deadline.ts";
import type { Dispatch } from "../../dispatch.ts";
import { messageOf, UserError } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { setReceiveTimeout, shutdown } from "../../libc/socket.ts";
import type { End, Statistics, Transport } from "../../transport.ts";
import { RequestWorker } from "../../serving/workers.ts";
import type { LinkedNode, NodeLink } from "./link.ts";
import { type RequestOptions, Service } from "../connection/service.ts";
import { type Ending, Session } from "../connection/session.ts";
import type { NodeReply, NodeRequest } from "./node.worker.ts";
import { makePartitionNodes, removeNodes } from "../../nodes/partition-nodes.ts";
import { Waiting, type WaitOptions } from "../wait/waiting.ts";

/** Payloads in memory, in bytes. */
const PAYLOAD_BYTES = 64 * 2 ** 20;
/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;
/** How long the node's worker gets to report once the connection has ended, in milliseconds. */
const REPORT_DEADLINE_MS = 5000;

export class NodeAttachment implements Transport {
  readonly path: string;
  readonly #name: string;
  readonly #dispatch: Dispatch;
  readonly #link: NodeLink;
  readonly #socket: number;
  readonly #service: Service;
  readonly #session: Session;
  readonly #waiting: Waiting;
  #nodeWorker: RequestWorker<NodeRequest, NodeReply> | undefined;
  /** Settles when the node's worker has no more to say; never rejected. */
  #followed: Promise<void> = Promise.resolve();
  #detaching = false;
  #over = false;
  #failure: Error | undefined;
  #isWatchful = true;
  #partitionNodes: readonly string[] = [];
  readonly #log: (line: string) => void;

  /**
   * Nothing is served yet. On failure the node stays the caller's.
   * @param node is let go of at the end of {@link serve}.
   */
  constructor(node: LinkedNode, dispatch: Dispatch, options: RequestOptions & WaitOptions = {}) {
    const { name } = node.link;
    const [socket = -1] = node.sockets;
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#dispatch = dispatch;
    this.#log = options.log ?? (() => undefined);
    this.#link = node.link;
    this.#socket = socket;
    unwrap(setReceiveTimeout(socket, ALERT_MS), "setsockopt(SO_RCVTIMEO)");
    this.#waiting = new Waiting(options);
    const onNews = (): void => this.#waiting.wake();
    this.#service = new Service(dispatch, options, PAYLOAD_BYTES);
    try {
      this.#session = new Session(socket, this.#service, { onNews }, () => this.#waiting.stop());
    } catch (error) {
      this.#service.close();
      throw error;
    }
    // What the kernel has not got an answer to when it disconnects may be data: how long that is waited for is not
    // for the connection to say.
    this.#session.isPatient = true;
    this.#waiting.add(this.#session);
  }

  get requests(): number {
    return this.#session.connection.requests;
  }

  get statistics(): Statistics {
    return this.#session.connection.statistics;
  }

  get inFlight(): number {
    return this.#session.connection.held;
  }

  /**
   * Serves until the device is detached: by {@link detach}, or by another process. `onReady` is called once, when
   * the node can be used and its partitions are there.
   * @throws UserError when the kernel did not start, the connection ended though nobody asked for it, or not all data
   *   was written.
   */
  async serve(onReady: () => void, end: End): Promise<void> {
    try {
      this.#session.onEnd = () => end.startClock();
      if (this.#failure === undefined) await this.#startWorkers(onReady);
      await this.#waiting.run();
      const { connection, ending = "closed" } = this.#session;
      if (connection.left > 0)
        this.#log(`the device still has ${connection.left} requests that it never answered`);
      await end.flush(this.#dispatch).catch((error: unknown) => this.#note(error));
      // The kernel's request to disconnect comes before the worker's word on how the writing back went.
      if (this.#detaching) await within(this.#followed, REPORT_DEADLINE_MS);
      if (this.#failure !== undefined) throw this.#failure;
      if (ending !== "disconnect") throw new UserError(this.#brokenMessage(ending));
    } finally {
      await this.#release();
    }
  }

  set watchful(on: boolean) {
    this.#isWatchful = on;
    this.#watch(on);
  }

  #watch(on: boolean): void {
    if (this.#over) return;
    this.#waiting.watchful = on;
    setReceiveTimeout(this.#socket, on ? ALERT_MS : IDLE_MS);
  }

  /** Brings all data that the system holds for the node to the device, then disconnects: serve() returns. */
  detach(): void {
    if (this.#detaching || this.#over) return;
    this.#watch(true);
    this.#detaching = true;
    this.#send("detach");
  }

  /** Cuts the connection: requests that are not answered fail, and what was not written back is lost. */
  cut(reason: UserError): void {
    if (this.#over) return;
    this.#failure ??= reason;
    this.#shutDown();
    this.#session.leave();
    // The driver does not fail by itself what is in flight when the connection ends. The thread that has the data
    // written back would wait for that, and so would the end of the process, even a kill.
    this.#link.letGo();
  }

  async #startWorkers(onReady: () => void): Promise<void> {
    // Whatever ends the link ends the connection, so that the loop comes to know.
    await this.#link.begin(() => this.#shutDown());
    if (this.#failure !== undefined) return;
    const nodeWorker = new RequestWorker<NodeRequest, NodeReply>("node");
    this.#nodeWorker = nodeWorker;
    await nodeWorker.next();
    if (this.#failure !== undefined) return;
    this.#send("settle");
    this.#followed = this.#follow(nodeWorker, onReady);
  }

  /** Takes the replies of the node's worker: first that of `settle`, perhaps later that of `detach`. */
  async #follow(nodeWorker: RequestWorker<NodeRequest, NodeReply>, onReady: () => void): Promise<void> {
    try {
      const settled = await nodeWorker.next();
      // Somebody else has disconnected it.
      const isOver = this.#over || this.#session.ending !== undefined;
      if (!isOver && settled.node !== undefined && this.#link.wantsGuard) this.#link.guard(settled.node);
      this.#send("close");
      if (isOver) return;
      if (settled.failure !== undefined) throw new UserError(`${this.path}: ${settled.failure}`);
      this.#partitionNodes = makePartitionNodes(this.#name, this.#log);
      this.#watch(this.#isWatchful);
      onReady();
      this.#link.settled();
      const detached = await nodeWorker.next();
      if (detached.failure !== undefined) throw new UserError(`${this.path}: ${detached.failure}`);
    } catch (error) {
      this.#note(error);
      this.#shutDown();
    }
  }

  #send(task: NodeRequest["task"]): void {
    this.#nodeWorker?.send({ task, name: this.#name, byNetlink: this.#link.byNetlink });
  }

  #note(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(messageOf(error));
  }

  #brokenMessage(ending: Ending): string {
    const fault = ending === "broken" ? this.#session.connection.fault : "the kernel closed the connection";
    return `${this.path} was cut off (${fault}): see "dmesg", a request time-out or a stop signal does this`;
  }

  #shutDown(): void {
    if (this.#over) return;
    // The connection reads the end of the stream.
    shutdown(this.#socket);
  }

  /** Ends what the constructor and the workers began. The node is free afterwards, unless somebody has it open. */
  async #release(): Promise<void> {
    shutdown(this.#socket);
    this.#over = true;
    removeNodes(this.#partitionNodes);
    await this.#link.release();
    this.#waiting.remove(this.#session);
    close(this.#socket);
    this.#session.connection.close();
    this.#service.close();
    await this.#nodeWorker?.end();
  }
}
