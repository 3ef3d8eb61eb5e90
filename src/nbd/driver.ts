/** Making sure that the driver is loaded and the node is there, as far as this process may. */
import { existsSync, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { mknodBlock } from "../libc/file.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { errorText } from "../libc/errno.ts";
import { nbdNodeState, nodeNames, whyBusy } from "./nodes.ts";

export function isDriverLoaded(): boolean {
  return nodeNames().length > 0;
}

/**
 * The name of the node for a target: `nbd0` for `/dev/nbd0`, the first free one for `nbd`. Loads the driver and
 * makes the node where they are missing.
 * @throws UserError when there is no such node, or somebody uses it.
 */
export function claimNode(target: string): string {
  const wanted = target === "nbd" ? undefined : nodeName(target);
  loadDriver();
  const name = wanted ?? firstFree();
  if (!existsSync(`/sys/block/${name}`)) {
    const last = nodeNames().at(-1);
    throw new UserError(
      `/dev/${name} does not exist: the last node is /dev/${last}, or load nbd with nbds_max=N`,
    );
  }
  makeNode(name);
  const busy = whyBusy(nbdNodeState(name));
  if (busy !== undefined) throw new UserError(busy);
  return name;
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

/** modprobe(8), where the driver is not in the kernel already. @throws UserError */
function loadDriver(): void {
  if (isDriverLoaded()) return;
  if (existsSync("/sys/module/nbd")) {
    throw new UserError(
      'the nbd driver has no nodes: load it anew, with "modprobe -r nbd && modprobe nbd nbds_max=16"',
    );
  }
  const modprobe = Bun.which("modprobe", { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" });
  if (modprobe === null) {
    throw new UserError(
      "the kernel has no nbd driver and there is no modprobe to load it: install kmod, or insmod nbd.ko",
    );
  }
  const run = Bun.spawnSync([modprobe, "nbd"], { stdout: "ignore", stderr: "pipe" });
  if (run.exitCode === 0 && isDriverLoaded()) return;
  const reason = run.stderr.toString().trim().split("\n").at(-1) || "modprobe nbd had no effect";
  throw new UserError(
    `the nbd driver cannot be loaded (${reason}): install the kernel's module package or a kernel with CONFIG_BLK_DEV_NBD`,
  );
}

function firstFree(): string {
  const free = nodeNames().find((name) => whyBusy(nbdNodeState(name)) === undefined);
  if (free !== undefined) return free;
  throw new UserError(
    `all ${nodeNames().length} NBD nodes are in use: disconnect one, or load nbd with a larger nbds_max`,
  );
}

/** mknod(2), for systems without devtmpfs or udev. */
function makeNode(name: string): void {
  const path = `/dev/${name}`;
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isBlockDevice() === true) return;
  if (stats !== undefined)
    throw new UserError(`${path} is not a block device: remove it and run "tsbuse doctor"`);
  const [major, minor] = (readAttribute(`/sys/block/${name}/dev`) ?? "").split(":").map(Number);
  if (major === undefined || minor === undefined)
    throw new UserError(`${path} does not exist: load the module with "modprobe nbd"`);
  const result = mknodBlock(path, major, minor);
  if (result < 0)
    throw new UserError(
      `${path} does not exist and cannot be made (${errorText(-result)}): make it with "mknod ${path} b ${major} ${minor}"`,
    );
}
