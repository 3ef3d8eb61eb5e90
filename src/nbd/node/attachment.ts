/**
 * A device on /dev/nbdN, by the driver's ioctls: set up, serve, take down.
 *
 * Three threads take part. The main thread runs the request loop on one end of a socket pair. A worker holds
 * NBD_DO_IT, in which the kernel serves the other end. A second worker does what must not be done by the thread
 * that answers the requests: it opens the node to have its partitions found, and it flushes and disconnects it.
 */
import { within } from "../../serving/deadline.ts";
import type { Dispatch } from "../../dispatch.ts";
import { messageOf, UserError } from "../../errors.ts";
import { close, open } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { setReceiveTimeout, setSendBuffer, shutdown, streamSocketPair } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { O_RDONLY } from "../../uapi/fcntl.ts";
import {
  NBD_CLEAR_SOCK,
  NBD_SET_BLKSIZE,
  NBD_SET_FLAGS,
  NBD_SET_SIZE_BLOCKS,
  NBD_SET_SOCK,
  NBD_SET_TIMEOUT,
} from "../../uapi/nbd.ts";
import type { End, Statistics, Transport } from "../../transport.ts";
import { RequestWorker } from "../../serving/workers.ts";
import type { DoItReply, DoItRequest } from "./do-it.worker.ts";
import { NodeTaken } from "./driver.ts";
import { type RequestOptions, Service } from "../connection/service.ts";
import { type Ending, Session } from "../connection/session.ts";
import type { NodeReply, NodeRequest } from "./node.worker.ts";
import { makePartitionNodes, removeNodes } from "../../nodes/partition-nodes.ts";
import { Waiting, type WaitOptions } from "../wait/waiting.ts";
import { transmissionFlags } from "../wire/transmission-flags.ts";

export interface NodeOptions extends RequestOptions, WaitOptions {
  /** NBD_SET_TIMEOUT: seconds after which the kernel gives up on a request; 0, the default, for never. */
  readonly timeoutSeconds?: number | undefined;
}

/** What either end may have on its way, in bytes: enough that neither waits for the other in a burst. */
const SOCKET_BUFFER_BYTES = 4 * 2 ** 20;
/** Payloads in memory, in bytes. */
const PAYLOAD_BYTES = 64 * 2 ** 20;
/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;
/** How long the kernel gets to let go of the node once the connection has ended, in milliseconds. */
const RELEASE_DEADLINE_MS = 5000;

export class NodeAttachment implements Transport {
  readonly path: string;
  readonly #name: string;
  readonly #dispatch: Dispatch;
  readonly #node: number;
  readonly #socket: number;
  readonly #service: Service;
  readonly #session: Session;
  readonly #waiting: Waiting;
  #doItWorker: RequestWorker<DoItRequest, DoItReply> | undefined;
  #doIt: Promise<number> | undefined;
  #nodeWorker: RequestWorker<NodeRequest, NodeReply> | undefined;
  /** Settles when the node's worker has no more to say; never rejected. */
  #followed: Promise<void> = Promise.resolve();
  #detaching = false;
  #over = false;
  #isLetGo = false;
  #failure: Error | undefined;
  #isWatchful = true;
  #partitionNodes: readonly string[] = [];
  readonly #log: (line: string) => void;

  /**
   * Sets the node up; nothing serves it yet. On failure the node is left as it was.
   * @param name of a free node, `nbd0`.
   * @throws NodeTaken when another process was quicker.
   */
  constructor(name: string, dispatch: Dispatch, options: NodeOptions = {}) {
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#dispatch = dispatch;
    this.#log = options.log ?? (() => undefined);
    // The ioctls ask for no more than reading; a node opened for writing would be probed anew at every close.
    this.#node = unwrap(open(this.path, O_RDONLY), `open ${this.path}`);
    const [ours, kernels] = socketPairFor(this.#node);
    this.#socket = ours;
    let service: Service | undefined;
    let session: Session | undefined;
    try {
      setSendBuffer(ours, SOCKET_BUFFER_BYTES);
      setSendBuffer(kernels, SOCKET_BUFFER_BYTES);
      unwrap(setReceiveTimeout(ours, ALERT_MS), "setsockopt(SO_RCVTIMEO)");
      this.#waiting = new Waiting(options);
      const onNews = (): void => this.#waiting.wake();
      service = new Service(dispatch, options, PAYLOAD_BYTES);
      session = new Session(ours, service, { onNews }, () => this.#waiting.stop());
      // What the kernel has not got an answer to when it disconnects may be data: how long that is waited for is not
      // for the connection to say.
      session.isPatient = true;
      this.#service = service;
      this.#session = session;
      this.#waiting.add(session);
      configure(this.#node, kernels, this.path, dispatch, options);
    } catch (error) {
      session?.connection.close();
      service?.close();
      close(ours);
      close(this.#node);
      throw error;
    } finally {
      // The kernel has its own reference. With ours gone, the end of this process is the end of the stream.
      close(kernels);
    }
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
      if (this.#detaching) await within(this.#followed, RELEASE_DEADLINE_MS);
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
    this.#nodeWorker?.send({ task: "detach", name: this.#name });
  }

  /** Cuts the connection: requests that are not answered fail, and what was not written back is lost. */
  cut(reason: UserError): void {
    if (this.#over) return;
    this.#failure ??= reason;
    this.#shutDown();
    this.#session.leave();
    // The driver does not fail by itself what is in flight when the connection ends. The thread that has the data
    // written back would wait for that, and so would the end of the process, even a kill.
    this.#letGo();
  }

  /** Once: after that the node may be somebody else's. */
  #letGo(): void {
    if (!this.#isLetGo) ioctl(this.#node, NBD_CLEAR_SOCK);
    this.#isLetGo = true;
  }

  async #startWorkers(onReady: () => void): Promise<void> {
    const doIt = new RequestWorker<DoItRequest, DoItReply>("doIt");
    this.#doItWorker = doIt;
    await doIt.next();
    // It was cut off meanwhile, and the node may be somebody else's.
    if (this.#failure !== undefined) return;
    doIt.send({ fd: this.#node });
    this.#doIt = doIt.next().then(
      (reply) => (reply.kind === "returned" ? reply.result : 0),
      () => -errno.EIO,
    );
    // Whatever ends the ioctl ends the connection, so that the loop comes to know.
    void this.#doIt.then(() => this.#shutDown());

    const nodeWorker = new RequestWorker<NodeRequest, NodeReply>("node");
    this.#nodeWorker = nodeWorker;
    await nodeWorker.next();
    if (this.#failure !== undefined) return;
    nodeWorker.send({ task: "settle", name: this.#name });
    this.#followed = this.#follow(nodeWorker, onReady);
  }

  /** Takes the replies of the node's worker: first that of `settle`, perhaps later that of `detach`. */
  async #follow(nodeWorker: RequestWorker<NodeRequest, NodeReply>, onReady: () => void): Promise<void> {
    try {
      const settled = await nodeWorker.next();
      // Somebody else has disconnected it.
      if (this.#over || this.#session.ending !== undefined) return;
      if (settled.failure !== undefined) throw new UserError(`${this.path}: ${settled.failure}`);
      this.#partitionNodes = makePartitionNodes(this.#name, this.#log);
      this.#watch(this.#isWatchful);
      onReady();
      const detached = await nodeWorker.next();
      if (detached.failure !== undefined) throw new UserError(`${this.path}: ${detached.failure}`);
    } catch (error) {
      this.#note(error);
      this.#shutDown();
    }
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
    if (this.#doIt !== undefined) await within(this.#doIt, RELEASE_DEADLINE_MS);
    this.#letGo();
    close(this.#node);
    this.#waiting.remove(this.#session);
    close(this.#socket);
    this.#session.connection.close();
    this.#service.close();
    await Promise.all([this.#doItWorker?.end(), this.#nodeWorker?.end()]);
  }
}

/** Closes the node when there is none to be had. @throws ErrnoError */
function socketPairFor(node: number): readonly [number, number] {
  try {
    return streamSocketPair();
  } catch (error) {
    close(node);
    throw error;
  }
}

/** Claims the node with its socket, then says what it is. Undoes the claim when something is refused. */
function configure(fd: number, socket: number, path: string, dispatch: Dispatch, options: NodeOptions): void {
  const claimed = ioctl(fd, NBD_SET_SOCK, socket);
  if (claimed === -errno.EBUSY) {
    throw new NodeTaken(`${path} has just been taken by another process: choose another node, or "auto"`);
  }
  if (claimed === -errno.EPERM) {
    throw new UserError(`${path}: the driver obeys root of the host alone: run it outside of the container`);
  }
  unwrap(claimed, `${path}: ioctl(NBD_SET_SOCK)`);
  try {
    const set = (name: string, request: number, value: number): number =>
      unwrap(ioctl(fd, request, value), `${path}: ioctl(${name}, ${value})`);
    set("NBD_SET_BLKSIZE", NBD_SET_BLKSIZE, dispatch.blockSize);
    set("NBD_SET_SIZE_BLOCKS", NBD_SET_SIZE_BLOCKS, dispatch.size / dispatch.blockSize);
    set("NBD_SET_FLAGS", NBD_SET_FLAGS, transmissionFlags(dispatch));
    set("NBD_SET_TIMEOUT", NBD_SET_TIMEOUT, options.timeoutSeconds ?? 0);
  } catch (error) {
    ioctl(fd, NBD_CLEAR_SOCK);
    throw error;
  }
}
