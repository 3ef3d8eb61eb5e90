/**
 * A device on /dev/nbdN, by the driver's ioctls: set up, serve, take down.
 *
 * Three threads take part. The main thread runs the request loop on one end of a socket pair. A worker holds
 * NBD_DO_IT, in which the kernel serves the other end. A second worker does what must not be done by the thread
 * that answers the requests: it opens the node to have its partitions found, and it flushes and disconnects it.
 */
import type { Dispatch } from "../dispatch.ts";
import { UserError } from "../errors.ts";
import { close, open } from "../libc/file.ts";
import { unwrap } from "../libc/errno.ts";
import { ioctl } from "../libc/ioctl.ts";
import { setReceiveTimeout, setSendBuffer, shutdown, streamSocketPair } from "../libc/socket.ts";
import { errno } from "../uapi/errno.ts";
import { O_RDONLY } from "../uapi/fcntl.ts";
import {
  NBD_CLEAR_SOCK,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_SET_BLKSIZE,
  NBD_SET_FLAGS,
  NBD_SET_SIZE_BLOCKS,
  NBD_SET_SOCK,
  NBD_SET_TIMEOUT,
} from "../uapi/nbd.ts";
import { RequestWorker } from "../workers.ts";
import { Connection, type Outcome, type Trace } from "./connection.ts";
import type { DoItReply, DoItRequest } from "./do-it.worker.ts";
import type { NodeReply, NodeRequest } from "./node.worker.ts";

export interface KernelOptions {
  /** NBD_SET_TIMEOUT: seconds after which the kernel gives up on a request; 0, the default, for never. */
  readonly timeoutSeconds?: number | undefined;
  readonly trace?: Trace | undefined;
}

/** How long a receive waits while the event loop has something to expect, in milliseconds. */
const ALERT_MS = 10;
/** How long it waits otherwise. A signal ends the wait at once, but for one that comes just before it. */
const IDLE_MS = 500;
/** What either end may have on its way, in bytes: enough that neither waits for the other in a burst. */
const SOCKET_BUFFER_BYTES = 4 * 2 ** 20;
/** How long the kernel gets to let go of the node once the connection has ended, in milliseconds. */
const RELEASE_DEADLINE_MS = 5000;

export class KernelAttachment {
  readonly path: string;
  readonly #name: string;
  readonly #dispatch: Dispatch;
  readonly #node: number;
  readonly #socket: number;
  readonly #connection: Connection;
  #doIt: Promise<number> | undefined;
  #nodeWorker: RequestWorker<NodeRequest, NodeReply> | undefined;
  #failure: Error | undefined;
  #alert = true;

  /**
   * Sets the node up; nothing serves it yet. On failure the node is left as it was.
   * @param name of a free node, `nbd0`.
   * @throws UserError when another process was quicker.
   */
  constructor(name: string, dispatch: Dispatch, options: KernelOptions = {}) {
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#dispatch = dispatch;
    this.#node = openNode(this.path);
    const [ours, kernels] = streamSocketPair();
    this.#socket = ours;
    try {
      setSendBuffer(ours, SOCKET_BUFFER_BYTES);
      setSendBuffer(kernels, SOCKET_BUFFER_BYTES);
      unwrap(setReceiveTimeout(ours, ALERT_MS), "setsockopt(SO_RCVTIMEO)");
      configure(this.#node, kernels, this.path, dispatch, options);
      this.#connection = new Connection(ours, dispatch, { trace: options.trace });
    } catch (error) {
      close(ours);
      close(this.#node);
      throw error;
    } finally {
      // The kernel has its own reference. With ours gone, the end of this process is the end of the stream.
      close(kernels);
    }
  }

  /** Requests answered so far. */
  get requests(): number {
    return this.#connection.requests;
  }

  /**
   * Serves until the device is detached: by {@link detach}, or by another process. `onReady` is called once, when
   * the node can be used and its partitions are there.
   * @throws UserError when the kernel did not start, or the connection ended though nobody asked for it.
   */
  async serve(onReady: () => void): Promise<void> {
    try {
      await this.#startWorkers(onReady);
      const outcome = await this.#pump();
      await this.#dispatch.flush();
      if (this.#failure !== undefined) throw this.#failure;
      if (outcome !== "disconnect") throw new UserError(this.#brokenMessage(outcome));
    } finally {
      await this.#release();
    }
  }

  /** While true the loop looks at the event loop every few milliseconds, even when it is idle. */
  set watchful(on: boolean) {
    this.#alert = on;
    setReceiveTimeout(this.#socket, on ? ALERT_MS : IDLE_MS);
  }

  /** Brings all data that the system holds for the node to the device, then disconnects: serve() returns. */
  detach(): void {
    setReceiveTimeout(this.#socket, ALERT_MS);
    this.#nodeWorker?.send({ task: "detach", name: this.#name });
  }

  /** Cuts the connection: requests that are not answered fail, and what was not written back is lost. */
  cut(): void {
    this.#failure ??= new UserError(
      `${this.path} was cut off before its data was written back: check the file system`,
    );
    shutdown(this.#socket);
  }

  async #startWorkers(onReady: () => void): Promise<void> {
    const doIt = new RequestWorker<DoItRequest, DoItReply>("doIt");
    await doIt.next();
    doIt.send({ fd: this.#node });
    this.#doIt = doIt.next().then((reply) => (reply.kind === "returned" ? reply.result : 0));
    // Whatever ends the ioctl ends the connection, so that the loop comes to know.
    void this.#doIt.then(() => shutdown(this.#socket));

    const nodeWorker = new RequestWorker<NodeRequest, NodeReply>("node");
    await nodeWorker.next();
    this.#nodeWorker = nodeWorker;
    nodeWorker.send({ task: "settle", name: this.#name });
    void this.#follow(nodeWorker, onReady);
  }

  /** Takes the replies of the node's worker: first that of `settle`, perhaps later that of `detach`. */
  async #follow(nodeWorker: RequestWorker<NodeRequest, NodeReply>, onReady: () => void): Promise<void> {
    try {
      const settled = await nodeWorker.next();
      if (settled.failure !== undefined) throw new UserError(`${this.path}: ${settled.failure}`);
      if (!this.#alert) setReceiveTimeout(this.#socket, IDLE_MS);
      onReady();
      const detached = await nodeWorker.next();
      if (detached.failure !== undefined) throw new UserError(`${this.path}: ${detached.failure}`);
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new Error(String(error));
      shutdown(this.#socket);
    }
  }

  async #pump(): Promise<Outcome> {
    for (;;) {
      const outcome = this.#connection.run();
      if (outcome !== "turn") return outcome;
      await eventLoopTurn();
    }
  }

  #brokenMessage(outcome: Outcome): string {
    const fault = outcome === "broken" ? this.#connection.fault : "the kernel closed the connection";
    return `${this.path} was cut off (${fault}): see "dmesg", a request time-out or a stop signal does this`;
  }

  /** Ends what the constructor and the workers began. The node is free afterwards, unless somebody has it open. */
  async #release(): Promise<void> {
    shutdown(this.#socket);
    if (this.#doIt !== undefined) await Promise.race([this.#doIt, Bun.sleep(RELEASE_DEADLINE_MS)]);
    ioctl(this.#node, NBD_CLEAR_SOCK);
    close(this.#node);
    close(this.#socket);
    this.#connection.close();
  }
}

/** Lets signal handlers, timers and messages run. */
function eventLoopTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
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

/** NBD_FLAG_*: what the device offers. Bits that an older kernel does not know are ignored by it. */
export function transmissionFlags(dispatch: Dispatch): number {
  const { write, flush, fua, trim, writeZeroes, rotational } = dispatch.capabilities;
  return (
    NBD_FLAG_HAS_FLAGS |
    (write ? 0 : NBD_FLAG_READ_ONLY) |
    (flush ? NBD_FLAG_SEND_FLUSH : 0) |
    (fua ? NBD_FLAG_SEND_FUA : 0) |
    (rotational ? NBD_FLAG_ROTATIONAL : 0) |
    (trim ? NBD_FLAG_SEND_TRIM : 0) |
    (writeZeroes ? NBD_FLAG_SEND_WRITE_ZEROES : 0)
  );
}
