/** From nothing to a device that is served: the driver's commands in order. */
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

/** As many as the NBD driver has. */
const QUEUE_DEPTH = 128;
/** The longest request, in bytes: beyond it the kernel splits. */
const REQUEST_BYTES = 2 ** 20;
/** And for swap, which is written by a few pages: all buffers of a queue are there from the start. */
const SWAP_REQUEST_BYTES = 128 * 1024;
/** What the buffers of a queue may span, in bytes: what one view of memory can. */
const ARENA_BYTES = 2 ** 32;
/** How long the first reads of a device may take, in milliseconds: the kernel looks for partitions. */
const START_LIMIT_MS = 60_000;
/** How long the kernel gets to notice that the server of a device that is only in the way is gone. */
const STOPPED_LIMIT_MS = 5000;
const POLL_MS = 10;
/** How long another process may take to delete what is left behind, in milliseconds. */
const LOCK_LIMIT_MS = 10_000;
/** How long a device that nobody uses may take to go, in milliseconds. */
const DELETE_LIMIT_MS = 2000;

/**
 * Makes a device with its size and abilities; nothing serves it yet.
 * @param target its number; undefined for any.
 * @throws UserError when the driver refuses it; nothing is left of it then.
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

/** The number of a device that is gone is taken until its last user has closed it: udev has in a moment. */
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
 * Devices whose server was killed stay in the driver, without a node, until somebody deletes them. That is done by one
 * process at a time: the number of what another one has just deleted may be a living device's.
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

/** What the driver says of a device, once it has noticed that the device's server is gone. */
async function infoOfStopped(control: Commands, id: number): Promise<DeviceInfo | undefined> {
  const deadline = performance.now() + STOPPED_LIMIT_MS;
  for (;;) {
    const info = await deviceInfo(control, id);
    if (info === undefined || !isAbandoned(info) || performance.now() > deadline) return info;
    await Bun.sleep(POLL_MS);
  }
}

/** The driver has yet to notice that a server of ours is gone. */
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
  // Its node may be gone, though mounted, or not be there yet.
  const isThere = ublkIds().includes(info.id);
  const busy = whyBusy(isThere ? served : { ...served, attached: false, leftBehind: false });
  if (busy !== undefined) return busy;
  const openers = openersOf(path).join(", ") || "its last user";
  return `${path} is gone, but its number is taken until ${openers} closes it: choose another number, or "ublk"`;
}

/** Who serves a device, or is about to. */
function serverOf({ maker }: DeviceInfo, state: NodeState): Pick<NodeState, "pid" | "command"> {
  const { pid, command, attached, leftBehind, waiting } = state;
  if (attached || leftBehind || waiting || maker === undefined) return { pid, command };
  return { pid: maker, command: commandOf(maker) };
}

/** /dev/ublkcN, by which the device is served. The caller closes it. @throws ErrnoError */
export function openCharacterDevice(id: number): number {
  return unwrap(open(`/dev/ublkc${id}`, O_RDWR), `open /dev/ublkc${id}`);
}

/** All queues have their tags with the driver: the node appears, or its users go on. @throws UserError */
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
