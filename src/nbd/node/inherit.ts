/**
 * Takes over a node from a living process, with the same sockets, so that the kernel notices nothing. The other process
 * stops between two requests, and this one continues with the next.
 */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { close } from "../../libc/file.ts";
import { canUseThreads } from "../../queues/count.ts";
import type { TakeOver } from "../../transport.ts";
import { backendOf } from "./backend.ts";
import { Guardian } from "./guardian.ts";
import type { ConnectionOptions } from "./kernel-connection.ts";
import type { LinkedNode } from "./link.ts";
import type { NbdFamily } from "./netlink.ts";
import { NetlinkLink } from "./netlink-link.ts";
import { nbdNodeState } from "./nodes.ts";
import { pathOf } from "./seat.ts";
import { checkPromises } from "./take-over.ts";

/** The name of a socket of a node, by the number of its queue: see Handover. */
export function socketName(index: number): string {
  return `socket${index}`;
}

/**
 * Gets the descriptors of the process that serves the node. Changes nothing: that process keeps them, too, until it has
 * released the node.
 * @param family belongs to the link afterwards, unless this fails.
 * @throws UserError if this is not the device that the node's users know.
 */
export function inheritNode(
  name: string,
  family: NbdFamily,
  dispatch: Dispatch,
  options: ConnectionOptions & { readonly recover?: boolean | undefined },
  takeOver: TakeOver,
): LinkedNode {
  const isRecoverable = backendOf(name)?.kind === "recoverable";
  if (options.recover === true && !isRecoverable)
    throw new UserError(`/dev/${name} was attached without --recover: leave it out, or attach it anew`);
  checkLikeness(name, dispatch, takeOver);
  const opened: number[] = [];
  const get = (what: string): number => {
    const fd = takeOver.descriptor(what);
    if (fd >= 0) opened.push(fd);
    return fd;
  };
  try {
    const sockets: number[] = [];
    for (let fd = get(socketName(0)); fd >= 0; fd = get(socketName(sockets.length))) sockets.push(fd);
    checkQueues(name, sockets.length, dispatch, options);
    const seat = get("seat");
    // Once that process is gone, the node would look abandoned and be cleared from under its users.
    if (seat < 0)
      throw new UserError(
        `/dev/${name} cannot be handed over: its process found no place for ${pathOf(name)}, by which the next one is known`,
      );
    const guardian = get("guardian");
    const linking = { identity: isRecoverable ? dispatch.identity : undefined, log: options.log };
    const link = new NetlinkLink(
      name,
      family,
      seat,
      linking,
      { untold: undefined, waits: isRecoverable },
      guardian < 0 ? undefined : new Guardian(guardian),
    );
    link.setForeign(true);
    return { link, sockets };
  } catch (error) {
    for (const fd of opened) close(fd);
    throw error;
  }
}

function checkLikeness(name: string, dispatch: Dispatch, { identity, hasData }: TakeOver): void {
  // Data that was handed over proves that it is the same device.
  if (identity !== dispatch.identity || (identity === undefined && !hasData))
    throw new UserError(
      `/dev/${name} is of ${identity ?? "a device that keeps its data in memory"}, and this device is ${dispatch.identity ?? "another one"}: give the one it was made for, with the same options`,
    );
  const { blockSize, readOnly } = nbdNodeState(name);
  if (blockSize !== dispatch.blockSize)
    throw new UserError(
      `/dev/${name} has blocks of ${blockSize} bytes, and this device of ${dispatch.blockSize}: give --block-size ${blockSize}`,
    );
  if (readOnly === dispatch.capabilities.write)
    throw new UserError(
      `/dev/${name} is ${readOnly ? "read-only" : "writable"}, and this device is not: ${readOnly ? "give --read-only" : "leave out --read-only"}`,
    );
  checkPromises(name, dispatch);
}

function checkQueues(name: string, queues: number, dispatch: Dispatch, options: ConnectionOptions): void {
  if (queues > 1 && !canUseThreads(dispatch, options))
    throw new UserError(
      `/dev/${name} has ${queues} queues, and this device can be reached by one thread only: give the same device and options`,
    );
}
