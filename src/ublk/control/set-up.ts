/** Sets up a device: the driver's commands in order. */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { errorText, unwrap } from "../../libc/errno.ts";
import { close, flock, open } from "../../libc/file.ts";
import { PASSING_USE_MS } from "../../nodes/claim.ts";
import { commandOf, type NodeState } from "../../nodes/node-state.ts";
import { whyBusy } from "../../nodes/node-use.ts";
import { openersOf, seesAllProcesses } from "../../nodes/openers.ts";
import { queueCount, tooManyQueues } from "../../queues/count.ts";
import { errno } from "../../uapi/errno.ts";
import { LOCK_EX, LOCK_NB, O_RDONLY, O_RDWR } from "../../uapi/fcntl.ts";
import {
  UBLK_F_CMD_IOCTL_ENCODE,
  UBLK_F_NEED_GET_DATA,
  UBLK_MAX_QUEUE_DEPTH,
  UBLK_S_DEV_LIVE,
  UBLK_U_CMD_ADD_DEV,
  UBLK_U_CMD_END_USER_RECOVERY,
  UBLK_U_CMD_SET_PARAMS,
  UBLK_U_CMD_START_DEV,
} from "../../uapi/ublk_cmd.ts";
import { type Commands, CONTROL_PATH } from "./control.ts";
import { decodeDeviceInfo, type DeviceInfo, encodeDeviceInfo, encodeParams } from "./device-info.ts";
import { deleteDevice } from "./end.ts";
import { recoveryFlags, ublkFeatures } from "../driver.ts";
import { blockName, deviceInfo, isLeftBehind, processServing, ublkIds, ublkNodeState } from "../nodes.ts";
import type { UblkOptions } from "../options.ts";
import { writeRecord } from "../record.ts";

/** The same as in the NBD driver. */
const QUEUE_DEPTH = 128;
/** The longest request, in bytes: the kernel splits longer ones. */
const REQUEST_BYTES = 2 ** 20;
/** The same for swap, which is written a few pages at a time: all buffers of a queue are allocated at the start. */
const SWAP_REQUEST_BYTES = 128 * 1024;
/** The limit for the buffers of a queue, in bytes: that of one view of memory. */
const ARENA_BYTES = 2 ** 32;
/** How long the first reads of a device may take, in milliseconds: the kernel looks for partitions. */
const START_LIMIT_MS = 60_000;
/** How long to wait for the kernel to notice that the server of a device in our way is gone, in milliseconds. */
const STOPPED_LIMIT_MS = 5000;
const POLL_MS = 10;
/** How long another process may take to delete abandoned devices, in milliseconds. */
const LOCK_LIMIT_MS = 10_000;
/** How long the deletion of an unused device may take, in milliseconds. */
const DELETE_LIMIT_MS = 2000;

/**
 * Makes a device with its size and features; nothing serves it yet.
 * @param target its number; undefined for any.
 * @throws UserError if the driver refuses it; nothing is left behind.
 */
export async function makeDevice(
  control: Commands,
  target: number | undefined,
  dispatch: Dispatch,
  options: UblkOptions,
): Promise<DeviceInfo> {
  const features = await ublkFeatures(control);
  await deleteLeftBehind(control);
  const queueDepth = options.queueDepth ?? QUEUE_DEPTH;
  if (queueDepth > UBLK_MAX_QUEUE_DEPTH)
    throw new UserError(`a queue depth of ${queueDepth} is invalid: give ${UBLK_MAX_QUEUE_DEPTH} or less`);
  const queues = queueCount(dispatch, options);
  const wanted = {
    id: target,
    queues,
    queueDepth,
    requestBytes: Math.min(
      options.swap === true ? SWAP_REQUEST_BYTES : REQUEST_BYTES,
      ARENA_BYTES / 2 / 2 ** Math.ceil(Math.log2(queueDepth)),
    ),
    flags:
      UBLK_F_CMD_IOCTL_ENCODE |
      // The driver copies from and to the device's memory: see queue.ts.
      (dispatch.memoryAddress < 0 ? 0 : features & UBLK_F_NEED_GET_DATA) |
      (options.recover === true || options.handover === true ? recoveryFlags(features) : 0),
  };
  const buffer = encodeDeviceInfo(wanted);
  const added = await addDevice(control, target, buffer);
  if (added < 0) throw new UserError(await whyNotAdded(control, target, -added));
  const info = decodeDeviceInfo(buffer);
  try {
    if (info.queues < queues) throw new UserError(tooManyQueues(queues, info.queues));
    const params = encodeParams(dispatch, info.requestBytes);
    const set = await control.command(UBLK_U_CMD_SET_PARAMS, { device: info.id, buffer: params });
    unwrap(set, `what the ublk driver is to know of /dev/${blockName(info.id)}`);
    if (options.recover === true && dispatch.identity !== undefined) writeRecord(info, dispatch.identity);
  } catch (error) {
    await deleteDevice(control, info.id, DELETE_LIMIT_MS);
    throw error;
  }
  return info;
}

/** The number of a deleted device stays taken until its last user has closed it, which udev does in a moment. */
async function addDevice(control: Commands, target: number | undefined, buffer: Uint8Array): Promise<number> {
  const deadline = performance.now() + PASSING_USE_MS;
  const about = { ...(target !== undefined && { device: target }), buffer };
  for (;;) {
    const added = await control.command(UBLK_U_CMD_ADD_DEV, about);
    const isGoing = added === -errno.EEXIST && target !== undefined && !ublkIds().includes(target);
    if (!isGoing || performance.now() > deadline) return added;
    await Bun.sleep(POLL_MS);
  }
}

/**
 * Devices whose server was killed stay in the driver, without a node, until somebody deletes them. Only one process at
 * a time does so: a number that another one has just freed may already belong to a new device.
 */
async function deleteLeftBehind(control: Commands): Promise<void> {
  const lock = await lockOut();
  if (lock === "another's") return;
  try {
    for (const id of ublkIds()) {
      const info = await infoOfStopped(control, id);
      if (info !== undefined && isLeftBehind(info)) await deleteDevice(control, id, DELETE_LIMIT_MS);
    }
  } finally {
    if (lock >= 0) close(lock);
  }
}

/** Returns a file descriptor that keeps the driver locked, or -errno where that fails. */
async function lockOut(): Promise<number | "another's"> {
  const fd = open(CONTROL_PATH, O_RDONLY);
  if (fd < 0) return fd;
  const deadline = performance.now() + LOCK_LIMIT_MS;
  while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    if (performance.now() > deadline) {
      close(fd);
      return "another's";
    }
    await Bun.sleep(POLL_MS);
  }
  return fd;
}

/** What the driver says about a device, once it has noticed that the server is gone. */
async function infoOfStopped(control: Commands, id: number): Promise<DeviceInfo | undefined> {
  const deadline = performance.now() + STOPPED_LIMIT_MS;
  for (;;) {
    const info = await deviceInfo(control, id);
    if (info === undefined || !isAbandoned(info) || performance.now() > deadline) return info;
    await Bun.sleep(POLL_MS);
  }
}

/** Whether a tsbuse server is gone and the driver has not noticed yet. */
function isAbandoned(info: DeviceInfo): boolean {
  const isOurs = info.state === UBLK_S_DEV_LIVE && info.maker !== undefined;
  return isOurs && seesAllProcesses() && processServing(info) === undefined;
}

async function whyNotAdded(control: Commands, target: number | undefined, number: number): Promise<string> {
  const path = target === undefined ? "a ublk device" : `/dev/${blockName(target)}`;
  switch (number) {
    case errno.EEXIST:
      return whyTaken(path, target === undefined ? undefined : await deviceInfo(control, target));
    case errno.EACCES:
    case errno.ENOSPC:
      return `${path} cannot be made: the driver has as many as it may, see /sys/module/ublk_drv/parameters/ublks_max`;
    case errno.EPERM:
      return `${path} cannot be made: run it as root (capability CAP_SYS_ADMIN)`;
    case errno.ENOMEM:
      return `${path} cannot be made, the kernel is out of memory: give a smaller --queue-depth or fewer queues`;
    case errno.ETIMEDOUT:
      return `${path} cannot be made: the driver does not answer, see "dmesg"`;
    default:
      return `${path} cannot be made (${errorText(number)}): see "dmesg" and "tsbuse doctor"`;
  }
}

export function whyTaken(path: string, info: DeviceInfo | undefined): string {
  if (info === undefined) return `${path} has just been taken: choose another number, or "ublk"`;
  const state = ublkNodeState(info.id, info);
  const served = { ...state, ...serverOf(info, state) };
  // Its node may be gone although mounted, or not exist yet.
  const isThere = ublkIds().includes(info.id);
  const busy = whyBusy(isThere ? served : { ...served, attached: false, leftBehind: false });
  if (busy !== undefined) return busy;
  const openers = openersOf(path).join(", ") || "its last user";
  return `${path} is gone, but its number is taken until ${openers} closes it: choose another number, or "ublk"`;
}

/** The process that serves a device or is about to. */
function serverOf({ maker }: DeviceInfo, state: NodeState): Pick<NodeState, "pid" | "command"> {
  const { pid, command, attached, leftBehind, waiting } = state;
  if (attached || leftBehind || waiting || maker === undefined) return { pid, command };
  return { pid: maker, command: commandOf(maker) };
}

/** Opens /dev/ublkcN, the character device for the server. The caller closes it. @throws ErrnoError */
export function openCharacterDevice(id: number): number {
  return unwrap(open(`/dev/ublkc${id}`, O_RDWR), `open /dev/ublkc${id}`);
}

/** Call it once the driver has the tags of all queues: the node appears, or its users continue. @throws UserError */
export async function startDevice(control: Commands, { id }: DeviceInfo, resumed: boolean): Promise<void> {
  const operation = resumed ? UBLK_U_CMD_END_USER_RECOVERY : UBLK_U_CMD_START_DEV;
  const result = await control.commandApart(operation, {
    device: id,
    data: process.pid,
    limitMs: START_LIMIT_MS,
  });
  if (result >= 0) return;
  throw new UserError(
    `/dev/${blockName(id)} cannot be started (${errorText(-result)}): see "dmesg" and "tsbuse doctor"`,
  );
}
