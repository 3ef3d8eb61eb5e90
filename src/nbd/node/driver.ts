/** Makes sure that the driver is loaded and the node exists, as far as this process may. */
import { existsSync } from "node:fs";
import { ensureNode } from "../../nodes/device-node.ts";
import { messageOf, UserError } from "../../errors.ts";
import { ensureModule } from "../../kmod/ensure.ts";
import type { ModuleParameters } from "../../kmod/parameters.ts";
import { close } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { claim, PASSING_USE_MS, PASSING_USE_POLL_MS } from "../../nodes/claim.ts";
import { isPassing, whyBusy } from "../../nodes/node-use.ts";
import { errno } from "../../uapi/errno.ts";
import { clearLeftBehind } from "./left-behind.ts";
import type { NbdFamily } from "./netlink.ts";
import { nbdNodeState, nodeIndex, nodeNames, withLeftBehind } from "./nodes.ts";

function isDriverLoaded(): boolean {
  return nodeNames().length > 0;
}

/** Parameters of the driver, used when it is loaded for a target: see modinfo(8). */
export interface DriverOptions {
  /** Partitions that each node can have: 0 to 255. */
  readonly maxPart?: number | undefined;
  /** Nodes: /dev/nbd0 to /dev/nbd(N - 1). */
  readonly nbdsMax?: number | undefined;
  /** Gets a line for each parameter that differs in a driver loaded before. */
  readonly log?: ((line: string) => void) | undefined;
}

/** The driver says that a node that looked free is in use. */
export class NodeTaken extends UserError {}

/** Why a node is unavailable. `passing`: perhaps only for a moment. `odd`: although nobody uses it. */
interface Refusal {
  readonly why: string;
  readonly passing: boolean;
  readonly odd?: boolean;
}

/** How a node is taken. */
export interface Taking<Taken> {
  /** Called with the name of a free node, and again, perhaps with another, if it throws NodeTaken. */
  readonly take: (name: string) => Taken;
  /** Takes by netlink a node that nobody has open, or a new one. Absent: takes an existing node by ioctl. */
  readonly family?: NbdFamily | undefined;
}

/** Loads the driver if it is missing. @throws UserError */
export async function loadNbd(options: DriverOptions): Promise<void> {
  await ensureModule("nbd", driverParameters(options), options.log);
}

/**
 * Takes the node of a target, `nbd0` for `/dev/nbd0`, the first free one for `nbd`, while nobody else can claim it.
 * Makes the node if it is missing, and waits a moment for programs that only look at it.
 * @throws UserError if there is no such node, or it is in use.
 */
export async function takeNode<Taken>(target: string, taking: Taking<Taken>): Promise<Taken> {
  const wanted = target === "nbd" ? undefined : nodeName(target);
  if (taking.family === undefined) refuseMissing(wanted);
  const deadline = performance.now() + PASSING_USE_MS;
  for (;;) {
    const result = wanted === undefined ? takeFirst(taking) : tryNode(wanted, true, taking);
    if ("taken" in result) return result.taken;
    if (!result.passing || performance.now() > deadline) throw new UserError(result.why);
    await Bun.sleep(PASSING_USE_POLL_MS);
  }
}

/** The ioctls make no nodes. @throws UserError */
function refuseMissing(wanted: string | undefined): void {
  if (!isDriverLoaded()) {
    throw new UserError(
      'the nbd driver has no nodes: load it anew, with "modprobe -r nbd && modprobe nbd nbds_max=16"',
    );
  }
  if (wanted !== undefined && !existsSync(`/sys/block/${wanted}`)) {
    const last = nodeNames().at(-1);
    throw new UserError(
      `/dev/${wanted} does not exist: the last node is /dev/${last}, or load nbd with nbds_max=N`,
    );
  }
}

function takeFirst<Taken>(taking: Taking<Taken>): { readonly taken: Taken } | Refusal {
  const names = nodeNames();
  let passing = false;
  let odd: string | undefined;
  for (const name of names) {
    const result = tryNode(name, false, taking);
    if ("taken" in result) return result;
    passing ||= result.passing;
    if (result.odd === true) odd ??= result.why;
  }
  if (taking.family !== undefined) {
    const last = names.at(-1);
    return tryNode(`nbd${last === undefined ? 0 : nodeIndex(last) + 1}`, false, taking);
  }
  const inUse = `all ${names.length} NBD nodes are in use: disconnect one, or load nbd with a larger nbds_max`;
  return { why: odd ?? inUse, passing };
}

/** @param isWanted whether no other node will do: then it asks the driver for the reason. */
function tryNode<Taken>(
  name: string,
  isWanted: boolean,
  { take, family }: Taking<Taken>,
): { readonly taken: Taken } | Refusal {
  const exists = existsSync(`/sys/block/${name}`);
  if (exists) {
    if (family !== undefined) clearLeftBehind(name, family);
    const seen = nbdNodeState(name);
    const state = isWanted ? withLeftBehind(seen) : seen;
    const busy = whyBusy(state);
    if (busy !== undefined) return { why: busy, passing: isPassing(state) };
  }
  const path = `/dev/${name}`;
  let fd = -1;
  try {
    if (exists) ensureNode(path, "block", `/sys/block/${name}/dev`);
    // By netlink the driver refuses a node that is open.
    if (family === undefined) fd = claim(path);
    if (fd === -errno.EBUSY)
      return { why: `${path} is held by another process: choose another node, or "auto"`, passing: true };
    if (family === undefined) unwrap(fd, `open ${path}`);
  } catch (error) {
    return { why: messageOf(error), passing: false, odd: true };
  }
  try {
    return { taken: take(name) };
  } catch (error) {
    if (error instanceof NodeTaken) return { why: error.message, passing: true };
    throw error;
  } finally {
    if (fd >= 0) close(fd);
  }
}

/** The driver rounds max_part up to 2^n - 1 and shows that. */
function driverParameters({ maxPart, nbdsMax }: DriverOptions): ModuleParameters {
  const bits = maxPart === undefined ? undefined : 32 - Math.clz32(maxPart);
  return { max_part: bits === undefined ? undefined : 2 ** bits - 1, nbds_max: nbdsMax };
}

/** `nbd0` for `/dev/nbd0`. @throws UserError for anything that is not the path of a whole NBD device. */
export function nodeName(target: string): string {
  const match = /^\/dev\/(nbd\d+)(p\d+)?$/.exec(target);
  if (match?.[1] === undefined) {
    throw new UserError(`${target} is not an NBD node: give /dev/nbd0, /dev/nbd1 …`);
  }
  if (match[2] !== undefined) {
    throw new UserError(`${target} is a partition: give the whole device, /dev/${match[1]}`);
  }
  return match[1];
}
