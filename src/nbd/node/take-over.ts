/**
 * Takes over a node that netlink attached and whose server is gone. Until then its users wait. The driver accepts new
 * sockets only once it has noticed that the old ones are closed, and drops them silently before that.
 */
import type { Dispatch } from "../../dispatch.ts";
import { ErrnoError, UserError } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { isClosedByPeer } from "../../libc/socket.ts";
import { whyBusy } from "../../nodes/node-use.ts";
import { errno } from "../../uapi/errno.ts";
import { backendOf, backendText, recoverableBackend } from "./backend.ts";
import type { LinkedNode, NodeShape } from "./link.ts";
import type { NbdFamily } from "./netlink.ts";
import { type LinkOptions, NetlinkLink, seatOf, taken } from "./netlink-link.ts";
import { attachedThread, nbdNodeState, nodeIndex, nodeNames } from "./nodes.ts";
import { leaveSeat } from "./seat.ts";
import { withKernelSockets } from "./sockets.ts";

/** How long the kernel may take to close the last server's sockets, in milliseconds. */
const RELEASE_LIMIT_MS = 10_000;
const POLL_MS = 10;

/** `nbd0`: the first node that waits for a server of this device; undefined if there is none. */
export function waitingNode(identity: string): string | undefined {
  const backend = recoverableBackend(identity);
  return nodeNames().find((name) => backendText(name) === backend && nbdNodeState(name).waiting);
}

/** Whether the node exists and was attached with --recover, whoever serves it now. */
export function isRecoverable(name: string): boolean {
  return backendOf(name)?.kind === "recoverable";
}

/** @throws UserError saying why a node that was not attached with --recover cannot be resumed. */
export function refuseResume(name: string): never {
  if (attachedThread(name) === undefined)
    throw new UserError(`/dev/${name} is not attached: see "tsbuse list", or attach it without --resume`);
  throw new UserError(
    whyBusy(nbdNodeState(name)) ?? `/dev/${name} was not attached with --recover: see "tsbuse list"`,
  );
}

/**
 * Becomes the server of a node that waits. On failure the node keeps waiting.
 * @param family belongs to the link afterwards, unless this fails.
 * @throws UserError if it has a server, or belongs to another device.
 */
export async function resumeNode(
  name: string,
  family: NbdFamily,
  dispatch: Dispatch,
  shape: NodeShape,
  options: LinkOptions,
): Promise<LinkedNode> {
  const seat = seatOrRefusal(name);
  try {
    const backend = checkLikeness(name, dispatch, options.identity);
    const sockets = await giveSockets(name, family, backend, options.bufferBytes);
    // Its first server was killed before it had set the size.
    const untold = nbdNodeState(name).size === 0 ? shape : undefined;
    return { link: new NetlinkLink(name, family, seat, options, { untold, waits: true }), sockets };
  } catch (error) {
    leaveSeat(name, seat, false);
    throw error;
  }
}

function seatOrRefusal(name: string): number {
  try {
    return seatOf(name, true);
  } catch (error) {
    // The message can name the process that has the seat.
    throw new UserError(whyBusy(nbdNodeState(name)) ?? taken(name).message, { cause: error });
  }
}

/**
 * Returns the backend identifier.
 * @throws UserError if it is not the device that the node's users know.
 */
function checkLikeness(name: string, dispatch: Dispatch, own = dispatch.identity): string {
  const path = `/dev/${name}`;
  const backend = recoverableBackend(own ?? "");
  if (backendText(name) !== backend) {
    const found = backendOf(name);
    const what = found?.kind === "recoverable" ? found.identity : "an unknown device";
    throw new UserError(
      `${path} is of ${what}, and this device is ${own}: give the one it was made for, with the same options`,
    );
  }
  checkPromises(name, dispatch);
  return backend;
}

/**
 * A device that has grown is served with the size that its users know: a resize tells them.
 * @throws UserError if it lacks something that the node's users were promised.
 */
export function checkPromises(name: string, dispatch: Dispatch): void {
  const path = `/dev/${name}`;
  const node = nbdNodeState(name);
  const words = ["flush", "fua", "trim", "writeZeroes"] as const;
  const lost = words.filter((word) => node[word] && !dispatch.capabilities[word]);
  if (lost.length > 0)
    throw new UserError(
      `users of ${path} have been promised ${lost.join(" and ")}, which this device is without: give the version that it was made for`,
    );
  if (node.size > dispatch.size)
    throw new UserError(
      `${path} has ${node.size} bytes, and this device ${dispatch.size}: give the one it was made for`,
    );
  if (node.size > 0) dispatch.size = node.size;
}

/** Returns our ends of the sockets that the driver has accepted. */
async function giveSockets(
  name: string,
  family: NbdFamily,
  backend: string,
  bufferBytes: number | undefined,
): Promise<readonly number[]> {
  const deadline = performance.now() + RELEASE_LIMIT_MS;
  for (;;) {
    const use = (kernels: readonly number[]): void => reconfigure(name, family, backend, kernels);
    const { sockets } = withKernelSockets(1, use, bufferBytes);
    if (!sockets.some(isClosedByPeer)) return sockets;
    for (const socket of sockets) close(socket);
    if (performance.now() > deadline)
      throw new UserError(
        `/dev/${name} cannot be resumed: the driver has not let go of its last server, try again`,
      );
    await Bun.sleep(POLL_MS);
  }
}

function reconfigure(name: string, family: NbdFamily, backend: string, kernels: readonly number[]): void {
  try {
    family.reconfigure(nodeIndex(name), backend, kernels);
  } catch (error) {
    if (error instanceof ErrnoError && error.errno === errno.EINVAL)
      throw new UserError(
        `/dev/${name} cannot be resumed, it has been disconnected: end what uses it, and attach it anew`,
        { cause: error },
      );
    throw error;
  }
}
