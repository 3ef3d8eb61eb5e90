/** Which node a target names, and which driver it belongs to. */
import { UserError } from "../errors.ts";
import { type DriverOptions, nodeName } from "../nbd/node/driver.ts";
import { isPrivileged } from "../nodes/privileges.ts";
import { Control } from "../ublk/control/control.ts";
import { loadUblk, ublkFeatures } from "../ublk/driver.ts";
import { whyBadDriver } from "../ublk/known-bad.ts";
import { isUblkTarget, ublkTarget } from "../ublk/nodes.ts";

/** A node to attach to. `target` is that of NBD, for `takeNode`; `id` undefined: the driver chooses. */
export type Node =
  | { readonly driver: "nbd"; readonly target: string }
  | { readonly driver: "ublk"; readonly id: number | undefined };

/**
 * @param target `/dev/nbdN`, `/dev/ublkbN`, `nbd` or `ublk` for any that is free, or `auto` for ublk where the kernel
 *   offers it, else nbd.
 * @param options of the NBD driver; its log also gets a line when `auto` is nbd, or a ublk driver is known to be bad.
 * @throws UserError if the driver is unavailable, or the target is not a node.
 */
export async function chooseNode(target: string, options: DriverOptions): Promise<Node> {
  const isUblk = isUblkTarget(target);
  const wanted = isUblk ? ublkTarget(target) : undefined;
  if (!isUblk && target !== "auto" && target !== "nbd") nodeName(target);
  if (!isPrivileged())
    throw new UserError(`attaching ${target} needs root: run it with sudo (capability CAP_SYS_ADMIN)`);
  if (isUblk) {
    const bad = whyBadDriver();
    if (bad !== undefined) options.log?.(`${bad}: use an NBD node, or another kernel`);
    await loadUblk();
    return { driver: "ublk", id: wanted };
  }
  if (target !== "auto") return { driver: "nbd", target };
  const missing = await whyNoUblk();
  if (missing === undefined) return { driver: "ublk", id: undefined };
  options.log?.(`an NBD node is used: ${missing}`);
  return { driver: "nbd", target: "nbd" };
}

/** Why this system has no ublk; undefined if it has. */
async function whyNoUblk(): Promise<string | undefined> {
  const bad = whyBadDriver();
  if (bad !== undefined) return `${bad}: use another kernel, or name /dev/ublkb0 to try it all the same`;
  try {
    await loadUblk();
    const control = new Control();
    await ublkFeatures(control).finally(() => control.close());
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}
