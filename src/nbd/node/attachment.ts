/**
 * A device on /dev/nbdN, by the driver's ioctls: set up, serve, take down.
 *
 * Three threads take part. The main thread runs the request loop on one end of a socket pair. A worker holds
 * NBD_DO_IT, in which the kernel serves the other end. A second worker does what must not be done by the thread
 * that answers the requests: it opens the node to have its partitions found, and it flushes and disconnects it.
 */
import { within } from "../../serving/deadline.ts";
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { close, open } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { setSendBuffer, shutdown, streamSocketPair } from "../../libc/socket.ts";
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
import type { Statistics, Transport } from "../../transport.ts";
import { RequestWorker } from "../../serving/workers.ts";
import type { DoItReply, DoItRequest } from "./do-it.worker.ts";
import type { Ending, EventOptions } from "../event/event-types.ts";
import type { NodeReply, NodeRequest } from "./node.worker.ts";
import { makePartitionNodes, removeNodes } from "../../nodes/partition-nodes.ts";
import { makePump, type Pump, type PumpKind } from "../wait/pump.ts";
import { transmissionFlags } from "../wire/transmission-flags.ts";

export interface KernelOptions extends EventOptions {
  /** Which way to serve: default `tight`. */
  readonly pump?: PumpKind | undefined;
  /** NBD_SET_TIMEOUT: seconds after which the kernel gives up on a request; 0, the default, for never. */
  readonly timeoutSeconds?: number | undefined;
}

/** What either end may have on its way, in bytes: enough that neither waits for the other in a burst. */
const SOCKET_BUFFER_BYTES = 4 * 2 ** 20;
/** How long the kernel gets to let go of the node once the connection has ended, in milliseconds. */
const RELEASE_DEADLINE_MS = 5000;

export class KernelAttachment implements Transport {
  readonly path: string;
  readonly #name: string;
  readonly #dispatch: Dispatch;
  readonly #node: number;
  readonly #socket: number;
  readonly #pump: Pump;
  #doIt: Promise<number> | undefined;
  #nodeWorker: RequestWorker<NodeRequest, NodeReply> | undefined;
  /** Settles when the node's worker has no more to say; never rejected. */
  #followed: Promise<void> = Promise.resolve();
  #detaching = false;
  #failure: Error | undefined;
  #alert = true;
  #partitionNodes: readonly string[] = [];
  readonly #log: (line: string) => void;

  /**
   * Sets the node up; nothing serves it yet. On failure the node is left as it was.
   * @param name of a free node, `nbd0`.
   * @throws UserError when another process was quicker.
   */
  constructor(name: string, dispatch: Dispatch, options: KernelOptions = {}) {
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#dispatch = dispatch;
    this.#log = options.log ?? (() => undefined);
    this.#node = openNode(this.path);
    const [ours, kernels] = streamSocketPair();
    this.#socket = ours;
    try {
      setSendBuffer(ours, SOCKET_BUFFER_BYTES);
      setSendBuffer(kernels, SOCKET_BUFFER_BYTES);
      configure(this.#node, kernels, this.path, dispatch, options);
      this.#pump = makePump(options.pump ?? "tight", ours, dispatch, options);
    } catch (error) {
      close(ours);
      close(this.#node);
      throw error;
    } finally {
      // The kernel has its own reference. With ours gone, the end of this process is the end of the stream.
      close(kernels);
    }
  }

  get requests(): number {
    return this.#pump.statistics.requests;
  }

  get statistics(): Statistics {
    return this.#pump.statistics;
  }

  /**
   * Serves until the device is detached: by {@link detach}, or by another process. `onReady` is called once, when
   * the node can be used and its partitions are there.
   * @throws UserError when the kernel did not start, or the connection ended though nobody asked for it.
   */
  async serve(onReady: () => void): Promise<void> {
    try {
      await this.#startWorkers(onReady);
      const outcome = await this.#pump.run();
      await this.#dispatch.flush();
      // The kernel's request to disconnect comes before the worker's word on how the writing back went.
      if (this.#detaching) await within(this.#followed, RELEASE_DEADLINE_MS);
      if (this.#failure !== undefined) throw this.#failure;
      if (outcome !== "disconnect") throw new UserError(this.#brokenMessage(outcome));
    } finally {
      await this.#release();
    }
  }

  /** While true the loop looks at the event loop every few milliseconds, even when it is idle. */
  set watchful(on: boolean) {
    this.#alert = on;
    this.#pump.watch(on);
  }

  /** Brings all data that the system holds for the node to the device, then disconnects: serve() returns. */
  detach(): void {
    this.#pump.watch(true);
    this.#detaching = true;
    this.#nodeWorker?.send({ task: "detach", name: this.#name });
  }

  /** Cuts the connection: requests that are not answered fail, and what was not written back is lost. */
  cut(): void {
    this.#failure ??= new UserError(
      `${this.path} was cut off before its data was written back: check the file system`,
    );
    this.#shutDown();
  }

  async #startWorkers(onReady: () => void): Promise<void> {
    const doIt = new RequestWorker<DoItRequest, DoItReply>("doIt");
    await doIt.next();
    doIt.send({ fd: this.#node });
    this.#doIt = doIt.next().then((reply) => (reply.kind === "returned" ? reply.result : 0));
    // Whatever ends the ioctl ends the connection, so that the loop comes to know.
    void this.#doIt.then(() => this.#shutDown());

    const nodeWorker = new RequestWorker<NodeRequest, NodeReply>("node");
    await nodeWorker.next();
    this.#nodeWorker = nodeWorker;
    nodeWorker.send({ task: "settle", name: this.#name });
    this.#followed = this.#follow(nodeWorker, onReady);
  }

  /** Takes the replies of the node's worker: first that of `settle`, perhaps later that of `detach`. */
  async #follow(nodeWorker: RequestWorker<NodeRequest, NodeReply>, onReady: () => void): Promise<void> {
    try {
      const settled = await nodeWorker.next();
      if (settled.failure !== undefined) throw new UserError(`${this.path}: ${settled.failure}`);
      this.#partitionNodes = makePartitionNodes(this.#name, this.#log);
      this.#pump.watch(this.#alert);
      onReady();
      const detached = await nodeWorker.next();
      if (detached.failure !== undefined) throw new UserError(`${this.path}: ${detached.failure}`);
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new Error(String(error));
      this.#shutDown();
    }
  }

  #brokenMessage(outcome: Ending): string {
    const fault = outcome === "broken" ? this.#pump.fault : "the kernel closed the connection";
    return `${this.path} was cut off (${fault}): see "dmesg", a request time-out or a stop signal does this`;
  }

  #shutDown(): void {
    shutdown(this.#socket);
    this.#pump.cut();
  }

  /** Ends what the constructor and the workers began. The node is free afterwards, unless somebody has it open. */
  async #release(): Promise<void> {
    shutdown(this.#socket);
    removeNodes(this.#partitionNodes);
    if (this.#doIt !== undefined) await within(this.#doIt, RELEASE_DEADLINE_MS);
    ioctl(this.#node, NBD_CLEAR_SOCK);
    close(this.#node);
    close(this.#socket);
    this.#pump.close();
  }
}

/** The ioctls ask for no more than reading; a node opened for writing would be probed anew at every close. */
function openNode(path: string): number {
  const fd = open(path, O_RDONLY);
  if (fd === -errno.EBUSY)
    throw new UserError(`${path} is held by another process: choose another node, or "auto"`);
  return unwrap(fd, `open ${path}`);
}

/** Claims the node with its socket, then says what it is. Undoes the claim when something is refused. */
function configure(
  fd: number,
  socket: number,
  path: string,
  dispatch: Dispatch,
  options: KernelOptions,
): void {
  const claimed = ioctl(fd, NBD_SET_SOCK, socket);
  if (claimed === -errno.EBUSY) {
    throw new UserError(`${path} has just been taken by another process: choose another node, or "auto"`);
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
