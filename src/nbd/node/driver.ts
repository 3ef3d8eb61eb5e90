/** Making sure that the driver is loaded and the node is there, as far as this process may. */
import { existsSync } from "node:fs";
import { ensureNode } from "../../nodes/device-node.ts";
import { UserError } from "../../errors.ts";
import { ensureModule } from "../../kmod/ensure.ts";
import type { ModuleParameters } from "../../kmod/parameters.ts";
import { whyBusy } from "../../nodes/node-use.ts";
import { nbdNodeState, nodeNames } from "./nodes.ts";

export function isDriverLoaded(): boolean {
  return nodeNames().length > 0;
}

/** Parameters of the driver, used when it is loaded for a target: modinfo(8) has them. */
export interface DriverOptions {
  /** Partitions that each node can have: 0 to 255. */
  readonly maxPart?: number | undefined;
  /** Nodes: /dev/nbd0 to /dev/nbd(N - 1). */
  readonly nbdsMax?: number | undefined;
  /** Gets a line for each parameter that a driver loaded before has otherwise. */
  readonly log?: ((line: string) => void) | undefined;
}

/**
 * The name of the node for a target: `nbd0` for `/dev/nbd0`, the first free one for `nbd`. Loads the driver and
 * makes the node where they are missing.
 * @throws UserError when there is no such node, or somebody uses it.
 */
export async function claimNode(target: string, options: DriverOptions = {}): Promise<string> {
  const wanted = target === "nbd" ? undefined : nodeName(target);
  await ensureModule("nbd", driverParameters(options), options.log);
  if (!isDriverLoaded()) {
    throw new UserError(
      'the nbd driver has no nodes: load it anew, with "modprobe -r nbd && modprobe nbd nbds_max=16"',
    );
  }
  const name = wanted ?? firstFree();
  if (!existsSync(`/sys/block/${name}`)) {
    const last = nodeNames().at(-1);
    throw new UserError(
      `/dev/${name} does not exist: the last node is /dev/${last}, or load nbd with nbds_max=N`,
    );
  }
  ensureNode(`/dev/${name}`, "block", `/sys/block/${name}/dev`);
  const busy = whyBusy(nbdNodeState(name));
  if (busy !== undefined) throw new UserError(busy);
  return name;
}

/** The driver rounds max_part up to all ones and shows that. */
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

function firstFree(): string {
  const free = nodeNames().find((name) => whyBusy(nbdNodeState(name)) === undefined);
  if (free !== undefined) return free;
  throw new UserError(
    `all ${nodeNames().length} NBD nodes are in use: disconnect one, or load nbd with a larger nbds_max`,
  );
}
