/**
 * The worker that uses the node. Opening, reading or flushing the node sends requests to the thread that serves it, and
 * waits for the replies: that thread must never do it itself.
 */
import { messageOf } from "../../errors.ts";
import { close, open } from "../../libc/file.ts";
import { errorText, unwrap } from "../../libc/errno.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { O_RDONLY } from "../../uapi/fcntl.ts";
import { NBD_DISCONNECT, NBD_PRINT_DEBUG, NBD_SET_SIZE_BLOCKS } from "../../uapi/nbd.ts";
import { callApart } from "../../nodes/apart.ts";
import { writeBack } from "../../nodes/write-back.ts";
import { onRequest } from "../../serving/workers.ts";
import { backendText } from "./backend.ts";
import { NbdFamily } from "./netlink.ts";
import { attachedThread, nodeIndex } from "./nodes.ts";
import { isStuck } from "./stuck.ts";
import { tellKernel, type Untold } from "./untold.ts";

declare const self: Worker;

interface About {
  readonly name: string;
  /** `settle` leaves a node that was attached by netlink open until the next task. */
  readonly byNetlink: boolean;
}

interface SettleRequest extends About {
  readonly task: "settle";
  /** What to tell the kernel first. */
  readonly untold: Untold | undefined;
}

/**
 * `settle`: wait until the node is usable and its partitions are found. `close`: only close it. `resize`: tell the
 * driver another size. `detach`: write everything back and disconnect.
 */
export type NodeRequest = About &
  (
    | { readonly task: "close" | "detach" }
    | SettleRequest
    | {
        readonly task: "resize";
        /** Bytes, as the size of a block. */
        readonly size: number;
        readonly blockSize: number;
      }
  );

/** A task's end. `failure` says what went wrong, if anything. */
export interface NodeReply {
  readonly task: "listening" | NodeRequest["task"];
  readonly failure?: string;
  /** From `settle`: a problem that does not stop it. */
  readonly warning?: string;
  /** From `settle`: the node, open. */
  readonly node?: number;
}

/** How long the kernel may take to begin, in milliseconds: it needs one or two. */
const START_DEADLINE_MS = 10_000;
const POLL_MS = 1;

/** The thread that the driver knows the node by while it is ours. */
let owner: number | undefined;

/** The node while it is left open, else -1. */
let node = -1;

/** Settles when all requested tasks are done, one at a time. */
let tasks = Promise.resolve();

onRequest<NodeRequest>(self, (request) => {
  tasks = tasks.then(() => carryOut(request));
});
self.postMessage({ task: "listening" } satisfies NodeReply);

async function carryOut(request: NodeRequest): Promise<void> {
  const { task } = request;
  if (node >= 0) close(node);
  node = -1;
  if (task === "close") return;
  const isUntold = task === "settle" && request.untold !== undefined;
  const { failure = await whyFailed(request), warning } = isUntold
    ? tellKernel(request.name, request.untold)
    : {};
  self.postMessage({
    task,
    ...(failure !== undefined && { failure }),
    ...(warning !== undefined && { warning }),
    ...(node >= 0 && { node }),
  } satisfies NodeReply);
}

/** Performs the task. Returns why it failed, if it did. */
async function whyFailed(request: NodeRequest): Promise<string | undefined> {
  const { name, byNetlink } = request;
  if (request.task === "detach") return detach(name);
  if (request.task === "resize") return resize(name, byNetlink, request.size, request.blockSize);
  return byNetlink ? openNode(name) : settle(name);
}

/** With netlink, the kernel already serves the node. Opening it finds the partitions. */
async function openNode(name: string): Promise<string | undefined> {
  owner = attachedThread(name);
  await callApart(`/dev/${name}`, "close");
  node = open(`/dev/${name}`, O_RDONLY);
  return node < 0 ? `cannot open /dev/${name}: ${errorText(-node)}` : undefined;
}

/**
 * The kernel looks for partitions at the first open after it has begun to serve. It shows `pid` a moment before it
 * is ready for that, with the device's lock held; an ioctl that does nothing waits for the lock.
 */
function settle(name: string): string | undefined {
  const deadline = performance.now() + START_DEADLINE_MS;
  while (attachedThread(name) === undefined) {
    if (performance.now() > deadline) return "the kernel did not begin to serve it";
    Bun.sleepSync(POLL_MS);
  }
  owner = attachedThread(name);
  return withNode(name, (fd) => {
    ioctl(fd, NBD_PRINT_DEBUG);
    // Opening it finds the partitions.
    return withNode(name, () => undefined);
  });
}

/** The kernel waits for requests in flight, and looks for partitions at the next open. */
function resize(name: string, byNetlink: boolean, size: number, blockSize: number): string | undefined {
  if (attachedThread(name) !== owner) return "somebody else has disconnected it";
  if (byNetlink && isStuck(name)) return "its device does not answer: resize it when it does";
  try {
    if (byNetlink) resizeByNetlink(name, size);
    else resizeByIoctl(name, size / blockSize);
    return undefined;
  } catch (error) {
    return `cannot be resized: ${messageOf(error)}`;
  }
}

function resizeByNetlink(name: string, size: number): void {
  using family = new NbdFamily();
  family.resize(nodeIndex(name), backendText(name) ?? "", size);
}

function resizeByIoctl(name: string, blocks: number): void {
  const fd = unwrap(open(`/dev/${name}`, O_RDONLY), `open /dev/${name}`);
  try {
    unwrap(ioctl(fd, NBD_SET_SIZE_BLOCKS, blocks), "ioctl(NBD_SET_SIZE_BLOCKS)");
  } finally {
    close(fd);
  }
}

/** Writes back what the system still holds for the node, then asks the kernel to end the connection. */
async function detach(name: string): Promise<string | undefined> {
  const synced = await writeBack(name);
  const failure = synced < 0 ? `not all data could be written back: ${errorText(-synced)}` : undefined;
  // Somebody else has disconnected it, and may have attached another device.
  if (attachedThread(name) !== owner) return failure;
  return withNode(name, (fd) => {
    const result = ioctl(fd, NBD_DISCONNECT);
    return result < 0 ? `cannot disconnect: ${errorText(-result)}` : failure;
  });
}

function withNode(name: string, use: (fd: number) => string | undefined): string | undefined {
  const fd = open(`/dev/${name}`, O_RDONLY);
  if (fd < 0) return `cannot open /dev/${name}: ${errorText(-fd)}`;
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}
