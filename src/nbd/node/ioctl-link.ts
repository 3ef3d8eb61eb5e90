/**
 * A node set up by the driver's ioctls. A worker holds NBD_DO_IT, in which the kernel serves the sockets. The node ends
 * with that thread, even if only a stop signal, a freezer or a debugger interrupts it.
 */
import { UserError } from "../../errors.ts";
import { unwrap } from "../../libc/errno.ts";
import { close, open } from "../../libc/file.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { within } from "../../serving/deadline.ts";
import { RequestWorker } from "../../serving/workers.ts";
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
import type { DoItReply, DoItRequest } from "./do-it.worker.ts";
import { NodeTaken } from "./driver.ts";
import type { NodeLink, NodeShape } from "./link.ts";
import { setQueueAttributes } from "./queue-attributes.ts";

/** How long the kernel may take to release the node once the connection has ended, in milliseconds. */
const RELEASE_DEADLINE_MS = 5000;

export class IoctlLink implements NodeLink {
  readonly byNetlink = false;
  readonly wantsGuard = false;
  readonly untold = undefined;
  readonly #node: number;
  #worker: RequestWorker<DoItRequest, DoItReply> | undefined;
  #doIt: Promise<void> | undefined;
  #isLetGo = false;

  /**
   * Sets up a free node; nothing serves it yet. On failure the node stays as it was.
   * @param sockets the kernel's ends.
   * @throws NodeTaken if another process was faster.
   */
  constructor(
    readonly name: string,
    sockets: readonly number[],
    shape: NodeShape,
    log?: (line: string) => void,
  ) {
    const path = `/dev/${name}`;
    // The ioctls require only read access; a node opened for writing would be probed again at every close.
    this.#node = unwrap(open(path, O_RDONLY), `open ${path}`);
    try {
      configure(this.#node, sockets, path, shape);
      // Nothing serves it yet: no request is in flight.
      const warning = setQueueAttributes(name, shape);
      if (warning !== undefined) log?.(warning);
    } catch (error) {
      close(this.#node);
      throw error;
    }
  }

  async begin(onEnd: () => void): Promise<void> {
    const worker = new RequestWorker<DoItRequest, DoItReply>("doIt");
    this.#worker = worker;
    await worker.next();
    // It was cut off meanwhile, and the node may belong to somebody else.
    if (this.#isLetGo) return;
    worker.send({ fd: this.#node });
    this.#doIt = worker.next().then(
      () => undefined,
      () => undefined,
    );
    void this.#doIt.then(onEnd);
  }

  guard(): void {
    // The thread in the kernel sees to that.
  }

  settled(): void {
    // The node has been ours since it was set up.
  }

  letGo(): void {
    if (!this.#isLetGo) ioctl(this.#node, NBD_CLEAR_SOCK);
    this.#isLetGo = true;
  }

  async release(): Promise<void> {
    if (this.#doIt !== undefined) await within(this.#doIt, RELEASE_DEADLINE_MS);
    this.letGo();
    close(this.#node);
    await this.#worker?.end();
  }
}

/** Claims the node with its sockets, then configures it. Undoes the claim if the driver refuses anything. */
function configure(fd: number, sockets: readonly number[], path: string, shape: NodeShape): void {
  const [first = -1, ...more] = sockets;
  const claimed = ioctl(fd, NBD_SET_SOCK, first);
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
    for (const socket of more) set("NBD_SET_SOCK", NBD_SET_SOCK, socket);
    set("NBD_SET_BLKSIZE", NBD_SET_BLKSIZE, shape.blockSize);
    set("NBD_SET_SIZE_BLOCKS", NBD_SET_SIZE_BLOCKS, shape.size / shape.blockSize);
    set("NBD_SET_FLAGS", NBD_SET_FLAGS, shape.flags);
    set("NBD_SET_TIMEOUT", NBD_SET_TIMEOUT, shape.timeout);
  } catch (error) {
    ioctl(fd, NBD_CLEAR_SOCK);
    throw error;
  }
}
