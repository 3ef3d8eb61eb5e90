/** Attaches a device to an NBD node: chooses the node, and netlink or ioctls. */
import type { Dispatch } from "../../dispatch.ts";
import { messageOf, UserError } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { readAttribute } from "../../libc/sysfs.ts";
import { queueCount, type QueueOptions, tooManyQueues } from "../../queues/count.ts";
import { NBD_FLAG_CAN_MULTI_CONN } from "../../uapi/nbd.ts";
import type { TakeOver } from "../../transport.ts";
import { transmissionFlags } from "../wire/transmission-flags.ts";
import { type AttachmentOptions, NodeAttachment } from "./attachment.ts";
import { type DriverOptions, loadNbd, nodeName, takeNode } from "./driver.ts";
import { inheritNode } from "./inherit.ts";
import { IoctlLink } from "./ioctl-link.ts";
import { SWAP_REQUEST_BYTES } from "./kernel-connection.ts";
import type { AttachWay, LinkedNode, NodeShape } from "./link.ts";
import { NbdFamily } from "./netlink.ts";
import { connectNode, NetlinkRefused } from "./netlink-link.ts";
import { SWAP_SOCKET_BUFFER_BYTES, withKernelSockets } from "./sockets.ts";
import { isRecoverable, refuseResume, resumeNode, waitingNode } from "./take-over.ts";

export interface NodeOptions extends AttachmentOptions, QueueOptions, DriverOptions {
  /** Seconds after which the driver gives up on a request; 0, the default, for never. */
  readonly timeoutSeconds?: number | undefined;
  /** Default `auto`. */
  readonly attach?: AttachWay | undefined;
  /** Let the node wait for another server if this process is killed, or take over one that waits. By netlink only. */
  readonly recover?: boolean | undefined;
  /** Take over a node that waits. */
  readonly resume?: boolean | undefined;
  /** Let another process take the node over. By netlink only. */
  readonly handover?: boolean | undefined;
}

/**
 * Loads the driver if it is missing.
 * @param target `/dev/nbd0`, or `nbd` for a free node.
 * @throws UserError if the node is unavailable.
 */
export async function attachNode(
  target: string,
  dispatch: Dispatch,
  options: NodeOptions,
): Promise<NodeAttachment> {
  if (target !== "nbd") nodeName(target);
  await loadNbd(options);
  const node = await linkNode(target, dispatch, options);
  try {
    return new NodeAttachment(node, dispatch, options);
  } catch (error) {
    for (const socket of node.sockets) close(socket);
    await node.link.release();
    throw error;
  }
}

async function linkNode(target: string, dispatch: Dispatch, options: NodeOptions): Promise<LinkedNode> {
  const { timeoutSeconds = 0, takeOver } = options;
  if (takeOver !== undefined) return inherit(nodeName(target), dispatch, options, takeOver);
  const { size, blockSize } = dispatch;
  const connections = connectionCount(dispatch, options);
  // All of them reach the same memory or file: a flush on one covers the writes of all.
  const several = connections > 1 ? NBD_FLAG_CAN_MULTI_CONN : 0;
  const flags = transmissionFlags(dispatch) | several;
  const requestBytes = options.swap === true ? SWAP_REQUEST_BYTES : undefined;
  const requestTimer = chooseRequestTimer(connections, options);
  const shape = { size, blockSize, flags, timeout: timeoutSeconds, connections, requestBytes, requestTimer };
  return linkBy(target, shape, dispatch, options);
}

function chooseRequestTimer(
  connections: number,
  { recover, timeoutSeconds = 0 }: NodeOptions,
): NodeShape["requestTimer"] {
  if (recover === true) return "looks";
  return connections > 1 && timeoutSeconds === 0 ? "off" : "usual";
}

async function linkBy(
  target: string,
  shape: NodeShape,
  dispatch: Dispatch,
  options: NodeOptions,
): Promise<LinkedNode> {
  const { attach = "auto" } = options;
  const outlives = options.recover === true || options.resume === true;
  if (outlives) refuseUnrecoverable(options);
  if (options.handover === true && attach === "ioctl")
    throw new UserError("an NBD node is handed over by netlink alone: leave out --attach, or --handover");
  if (attach === "ioctl") return byIoctl(target, shape, options);
  try {
    return await byNetlink(target, shape, dispatch, options);
  } catch (error) {
    if (!(error instanceof NetlinkRefused)) throw error;
    if (outlives)
      throw new UserError(`an NBD node is recovered by netlink, which cannot be used: ${error.message}`);
    if (options.handover === true)
      throw new UserError(
        `an NBD node is handed over by netlink, which cannot be used: ${error.message}: leave out --handover`,
      );
    if (attach === "netlink")
      throw new UserError(
        `netlink cannot be used: ${error.message}: leave out --attach, or give --attach ioctl`,
      );
    options.log?.(`the node is attached by ioctl, and a stop signal ends it: ${error.message}`);
    return byIoctl(target, shape, options);
  }
}

function inherit(name: string, dispatch: Dispatch, options: NodeOptions, takeOver: TakeOver): LinkedNode {
  const family = openFamily();
  try {
    return inheritNode(name, family, dispatch, options, takeOver);
  } catch (error) {
    family.close();
    throw error;
  }
}

/** @throws UserError */
function refuseUnrecoverable({ attach, timeoutSeconds = 0 }: NodeOptions): void {
  if (attach === "ioctl")
    throw new UserError("an NBD node is recovered by netlink alone: leave out --attach, or --recover");
  // The driver could not tell a dead server from a slow one.
  if (timeoutSeconds > 0)
    throw new UserError(
      "an NBD node with a time-out of the driver's does not wait: leave out --timeout, or --recover",
    );
}

async function byNetlink(
  target: string,
  shape: NodeShape,
  dispatch: Dispatch,
  options: NodeOptions,
): Promise<LinkedNode> {
  const identity = options.recover === true || options.resume === true ? dispatch.identity : undefined;
  const family = openFamily();
  const linking = { identity, bufferBytes: bufferBytes(options), log: options.log };
  try {
    const waiting = identity === undefined ? undefined : toResume(target, identity, options);
    if (waiting !== undefined) return await resumeNode(waiting, family, dispatch, shape, linking);
    const take = (name: string): LinkedNode =>
      withKernelSockets(
        shape.connections,
        (kernels) => connectNode(name, family, kernels, shape, linking),
        linking.bufferBytes,
      );
    return await takeNode(target, { take, family });
  } catch (error) {
    family.close();
    throw error;
  }
}

/** The node to take over; undefined to attach a new one. @throws UserError */
function toResume(target: string, identity: string, { resume }: NodeOptions): string | undefined {
  if (target === "nbd") {
    const name = waitingNode(identity);
    if (name === undefined && resume === true)
      throw new UserError(`no NBD node waits for ${identity}: see "tsbuse list"`);
    return name;
  }
  const name = nodeName(target);
  if (isRecoverable(name)) return name;
  return resume === true ? refuseResume(name) : undefined;
}

function byIoctl(target: string, shape: NodeShape, options: NodeOptions): Promise<LinkedNode> {
  const use = (name: string, kernels: readonly number[]): IoctlLink =>
    new IoctlLink(name, kernels, shape, options.log);
  const take = (name: string): LinkedNode =>
    withKernelSockets(shape.connections, (kernels) => use(name, kernels), bufferBytes(options));
  return takeNode(target, { take });
}

function bufferBytes({ swap }: NodeOptions): number | undefined {
  return swap === true ? SWAP_SOCKET_BUFFER_BYTES : undefined;
}

/** @throws UserError if there would be more than the kernel uses. */
function connectionCount(dispatch: Dispatch, options: NodeOptions): number {
  const count = queueCount(dispatch, options);
  if (count > 1 && (options.recover === true || options.resume === true)) {
    // The driver sends a request again when its timer fires, which would be the end of slow connections.
    options.log?.("an NBD node that can be recovered has one connection: it is served by one queue");
    return 1;
  }
  if (count > 1 && options.swap === true) {
    options.log?.("an NBD node for swap has one connection: it is served by one queue");
    return 1;
  }
  const processors = possibleProcessors();
  if (count > processors) throw new UserError(tooManyQueues(count, processors));
  return count;
}

/** The kernel's limit of hardware queues: all processors, online or not. */
function possibleProcessors(): number {
  const last = /\d+$/.exec(readAttribute("/sys/devices/system/cpu/possible") ?? "")?.[0];
  return last === undefined ? Number.POSITIVE_INFINITY : Number(last) + 1;
}

/** @throws NetlinkRefused */
function openFamily(): NbdFamily {
  try {
    return new NbdFamily();
  } catch (error) {
    throw new NetlinkRefused(messageOf(error));
  }
}
