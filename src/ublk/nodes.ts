/** The ublk devices of this system: /dev/ublkbN, the block device, and /dev/ublkcN, through which it is served. */
import { nodeState, type NodeState } from "../nodes/node-state.ts";
import { hasOpen, processesWith, seesAllProcesses } from "../nodes/openers.ts";
import { unwrap } from "../libc/errno.ts";
import { attributeNames } from "../libc/sysfs.ts";
import { ErrnoError, messageOf, UserError } from "../errors.ts";
import {
  UBLK_S_DEV_DEAD,
  UBLK_S_DEV_LIVE,
  UBLK_S_DEV_QUIESCED,
  UBLK_U_CMD_GET_DEV_INFO,
  ublksrv_ctrl_dev_info,
} from "../uapi/ublk_cmd.ts";
import { errno } from "../uapi/errno.ts";
import { isPrivileged } from "../nodes/privileges.ts";
import { readRecord } from "./record.ts";
import { type Commands, Control } from "./control/control.ts";
import { decodeDeviceInfo, type DeviceInfo } from "./control/device-info.ts";

/** The limit of devices: <linux/kdev_t.h>, MINORBITS. */
const UBLK_MINORS = 2 ** 20;

/** Which device a target names: undefined for `ublk`, which leaves the number to the driver. */
export function ublkTarget(target: string): number | undefined {
  if (target === "ublk") return undefined;
  const match = /^\/dev\/ublkb(0|[1-9]\d*)(p\d+)?$/.exec(target);
  if (match?.[1] === undefined)
    throw new UserError(`${target} is not a ublk device: give /dev/ublkb0, or "ublk"`);
  if (match[2] !== undefined)
    throw new UserError(`${target} is a partition: give the whole device, /dev/ublkb${match[1]}`);
  const id = Number(match[1]);
  if (id >= UBLK_MINORS)
    throw new UserError(`${target} is invalid: the ublk driver has numbers up to ${UBLK_MINORS - 1}`);
  return id;
}

export function isUblkTarget(target: string): boolean {
  return target === "ublk" || target.startsWith("/dev/ublk");
}

/** `ublkb0`. */
export function blockName(id: number): string {
  return `ublkb${id}`;
}

/** The numbers of all devices in the driver, even those that nobody serves, in order. */
export function ublkIds(): number[] {
  const ids = attributeNames("/sys/class/ublk-char").flatMap((name) => /^ublkc(\d+)$/.exec(name)?.[1] ?? []);
  return ids.map(Number).toSorted((a, b) => a - b);
}

/** What the driver says about a device; undefined if there is none with this number. @throws ErrnoError */
export async function deviceInfo(control: Commands, id: number): Promise<DeviceInfo | undefined> {
  const buffer = new Uint8Array(new ArrayBuffer(ublksrv_ctrl_dev_info.size));
  const result = await control.command(UBLK_U_CMD_GET_DEV_INFO, { device: id, buffer });
  if (result === -errno.EINVAL || result === -errno.ENODEV || result === -errno.ENOENT) return undefined;
  unwrap(result, `what the ublk driver knows of device ${id}`);
  return decodeDeviceInfo(buffer);
}

/** @param info from the driver; undefined if we may not ask it. */
export function ublkNodeState(id: number, info: DeviceInfo | undefined): NodeState {
  const name = blockName(id);
  if (info === undefined) {
    const pid = processServing({ id, pid: 0 });
    return nodeState(name, { attached: true, leftBehind: false, pid, waiting: false });
  }
  const waiting = info.state === UBLK_S_DEV_QUIESCED;
  const isLive = info.state === UBLK_S_DEV_LIVE;
  const pid = isLive ? processServing(info) : undefined;
  // The driver has not noticed yet.
  const isGone = isLive && pid === undefined && seesAllProcesses();
  const leftBehind = isGone || (info.state === UBLK_S_DEV_DEAD && !isBeingMade(info));
  const identity = readRecord(info);
  return nodeState(name, { attached: isLive && !isGone, leftBehind, pid, waiting, identity });
}

/**
 * The process that has /dev/ublkcN open, which only one can at a time. The driver shows the process ID that the server
 * has named, which in another PID namespace means another process.
 */
export function processServing({ id, pid }: Pick<DeviceInfo, "id" | "pid">): number | undefined {
  const path = `/dev/ublkc${id}`;
  return pid > 0 && hasOpen(pid, path) === true ? pid : processesWith(path)[0];
}

function isBeingMade({ maker }: DeviceInfo): boolean {
  return maker !== undefined && isAlive(maker);
}

export interface UblkNodes {
  readonly nodes: readonly NodeState[];
  /** Why it is unknown whether each has a server; undefined if it is known. */
  readonly unknown: string | undefined;
}

/** The state of every device. The driver answers only root, and only through io_uring. */
export async function ublkNodes(): Promise<UblkNodes> {
  const ids = ublkIds();
  if (ids.length === 0) return { nodes: [], unknown: undefined };
  const unknowing = (unknown: string): UblkNodes => ({
    nodes: ids.map((id) => ublkNodeState(id, undefined)),
    unknown,
  });
  if (!isPrivileged()) return unknowing("only root is told: run it with sudo");
  try {
    return { nodes: await askAll(ids), unknown: undefined };
  } catch (error) {
    if (error instanceof UserError || error instanceof ErrnoError) return unknowing(messageOf(error));
    throw error;
  }
}

async function askAll(ids: readonly number[]): Promise<NodeState[]> {
  const control = new Control();
  try {
    const states: NodeState[] = [];
    for (const id of ids) {
      const info = await deviceInfo(control, id);
      // It may be gone by now.
      if (info !== undefined) states.push(ublkNodeState(id, info));
    }
    return states;
  } finally {
    control.close();
  }
}

/** Whether a process with this ID exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/**
 * Whether a tsbuse process made the device, and neither that one nor another serves or will serve it. Always false if
 * not all processes are visible, because the ID of its maker then means nothing.
 */
export function isLeftBehind(info: DeviceInfo): boolean {
  const isOrphan = info.state === UBLK_S_DEV_DEAD && info.maker !== undefined && !isAlive(info.maker);
  return isOrphan && seesAllProcesses() && processServing(info) === undefined;
}
