/**
 * Takes over a device from a server that is gone: checks that it is the same device, and gives the driver's command to
 * begin.
 *
 * That command is the point of no return. The driver forgets the queues of the last server, and refuses to repeat the
 * command until it has the tags of all new queues. If it has those of some queues only, drivers before Linux 6.16
 * dereference a null pointer, which takes the machine down. So everything that can be prepared is prepared before, and
 * {@link completeQueues} repairs what a server leaves that fails or is killed in between.
 */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { unwrap } from "../../libc/errno.ts";
import { close, open } from "../../libc/file.ts";
import { Ring } from "../../libc/uring.ts";
import { errno } from "../../uapi/errno.ts";
import { O_RDWR } from "../../uapi/fcntl.ts";
import {
  UBLK_F_QUIESCE,
  UBLK_F_USER_RECOVERY,
  UBLK_S_DEV_LIVE,
  UBLK_S_DEV_QUIESCED,
  UBLK_U_CMD_GET_PARAMS,
  UBLK_U_CMD_START_USER_RECOVERY,
} from "../../uapi/ublk_cmd.ts";
import { commandOf } from "../../nodes/node-state.ts";
import { canUseThreads } from "../../queues/count.ts";
import { ublkFeatures } from "../driver.ts";
import { blockName, deviceInfo, processServing } from "../nodes.ts";
import type { TakeOver } from "../../transport.ts";
import type { UblkOptions } from "../options.ts";
import { TagCommands } from "../queue/tag-commands.ts";
import { readRecord } from "../record.ts";
import type { Commands } from "./control.ts";
import { decodeShape, type DeviceInfo, paramsRoom } from "./device-info.ts";
import { SUBJECT_FD, submitApart } from "./ring-process.ts";
import { whyTaken } from "./set-up.ts";

/**
 * How long the driver may take to notice that a server is gone, in milliseconds. If that server has as many requests as
 * there are tags, the driver notices when the first of them has taken thirty seconds.
 */
const QUIESCE_LIMIT_MS = 60_000;
/** How long the kernel may take to close the last server's files, in milliseconds. */
const RELEASE_LIMIT_MS = 10_000;
/** After this many milliseconds the user is told what we wait for. */
const PATIENCE_MS = 2000;
const POLL_MS = 10;
/** Each poll searches all processes, so it is less frequent where the wait may take half a minute. */
const SLOW_POLL_MS = 250;
/** How long a process of a few instructions may take. */
const HELPER_LIMIT_MS = 5000;
/** Any address: nothing is copied there while the device waits. */
const ANY_ADDRESS = 4096;

/**
 * Finds the device to take over. Changes nothing yet.
 * @throws UserError if it cannot be resumed, or was made for another device.
 */
export async function findWaiting(
  control: Commands,
  target: number | undefined,
  dispatch: Dispatch,
  options: UblkOptions,
): Promise<DeviceInfo> {
  if (target === undefined) throw new UserError('name the device to resume: /dev/ublkb0, see "tsbuse list"');
  const info = await waitUntilQuiesced(control, target, options);
  await checkLikeness(control, info, dispatch);
  checkQueues(info, dispatch, options);
  return info;
}

/** @throws UserError if we cannot serve all of them. */
function checkQueues({ id, queues }: DeviceInfo, dispatch: Dispatch, options: UblkOptions): void {
  if (queues > 1 && !canUseThreads(dispatch, options))
    throw new UserError(
      `/dev/${blockName(id)} has ${queues} queues, and this device can be reached by one thread only: give the same device and options`,
    );
}

/**
 * Finds the device to take over from the process that serves it. Changes nothing yet.
 * @throws UserError if it was made for another device.
 */
export async function findServed(
  control: Commands,
  target: number | undefined,
  dispatch: Dispatch,
  options: UblkOptions,
): Promise<DeviceInfo> {
  const info = target === undefined ? undefined : await deviceInfo(control, target);
  if (info === undefined) throw new UserError('name the device to take over: /dev/ublkb0, see "tsbuse list"');
  await checkLikeness(control, info, dispatch, options.takeOver);
  checkQueues(info, dispatch, options);
  return info;
}

/** Waits until the driver has noticed that the server has released the device. @throws UserError */
export async function waitUntilLetGo(control: Commands, { id, stamp }: DeviceInfo): Promise<void> {
  const deadline = performance.now() + QUIESCE_LIMIT_MS;
  for (;;) {
    const info = await deviceInfo(control, id);
    // Its server may have ended it, and its number may belong to another device by now.
    const isGone = info === undefined || info.stamp !== stamp;
    if (!isGone && info.state === UBLK_S_DEV_QUIESCED) return;
    if (isGone || performance.now() > deadline)
      throw new UserError(`/dev/${blockName(id)} cannot be taken over: the driver does not let go of it`);
    await Bun.sleep(1);
  }
}

async function waitUntilQuiesced(
  control: Commands,
  id: number,
  { log }: Pick<UblkOptions, "log">,
): Promise<DeviceInfo> {
  const path = `/dev/${blockName(id)}`;
  const began = performance.now();
  let isTold = false;
  for (;;) {
    const info = await deviceInfo(control, id);
    if (info === undefined) throw new UserError(`${path} does not exist: see "tsbuse list"`);
    if (info.state === UBLK_S_DEV_QUIESCED) return info;
    const server = processServing(info);
    if ((info.flags & UBLK_F_USER_RECOVERY) === 0) {
      const rest = server === undefined ? "" : `, and process ${server} serves it`;
      throw new UserError(
        `${path} was not attached with --recover${rest}: attach the device anew, on another number`,
      );
    }
    if (server !== undefined) throw new UserError(whyTaken(path, info));
    const tookMs = performance.now() - began;
    if (tookMs > QUIESCE_LIMIT_MS)
      throw new UserError(
        `${path} cannot be resumed: the driver has not let go of its last server, try again`,
      );
    if (tookMs > PATIENCE_MS && !isTold)
      log?.(
        `${path}: the driver has not noticed yet that its last server is gone, which can take half a minute`,
      );
    isTold ||= tookMs > PATIENCE_MS;
    await Bun.sleep(isTold ? SLOW_POLL_MS : POLL_MS);
  }
}

/**
 * A device that has grown is served with the size that its users know: a resize tells them.
 * @throws UserError if it is not the device that the node's users know.
 */
async function checkLikeness(
  control: Commands,
  info: DeviceInfo,
  dispatch: Dispatch,
  takeOver?: TakeOver,
): Promise<void> {
  const path = `/dev/${blockName(info.id)}`;
  const params = paramsRoom();
  const got = await control.command(UBLK_U_CMD_GET_PARAMS, { device: info.id, buffer: params });
  unwrap(got, `parameters of ${path}`);
  const { size, blockSize, offers } = decodeShape(params);
  if (size > dispatch.size || blockSize !== dispatch.blockSize)
    throw new UserError(
      `${path} has ${size} bytes in blocks of ${blockSize}, this device ${dispatch.size} in blocks of ${dispatch.blockSize}: give the one it was made for`,
    );
  const identity = readRecord(info);
  // Data that was handed over proves that it is the same device.
  if (identity === undefined && takeOver?.hasData !== true)
    throw new UserError(
      takeOver === undefined
        ? `${path} cannot be resumed, nothing tells which device it was made for: run "tsbuse disconnect ${path}"`
        : `${path} keeps its data in memory, and this device does not take it: give the one it was made for, with the same layers`,
    );
  if (identity !== dispatch.identity)
    throw new UserError(
      `${path} is of ${identity}, and this device is ${dispatch.identity}: give the one it was made for, with the same options`,
    );
  const lost = offers.filter((word) => !dispatch.capabilities[word]);
  if (lost.length > 0)
    throw new UserError(
      `users of ${path} have been promised ${lost.join(" and ")}, which this device is without: give the version that it was made for`,
    );
  dispatch.size = size;
}

/**
 * Begins the takeover. Then hand over the queues' tags, or call {@link completeQueues} if that fails.
 * @throws UserError if the driver refuses; then nothing has changed.
 */
export async function beginTakeOver(control: Commands, info: DeviceInfo): Promise<void> {
  const path = `/dev/${blockName(info.id)}`;
  // Drivers with this flag start afresh with the queues whenever their server has gone.
  const isForgetful = ((await ublkFeatures(control)) & UBLK_F_QUIESCE) !== 0;
  let isMended = info.queues > 1 && !isForgetful;
  if (isMended) await completeQueues(info);
  const deadline = performance.now() + RELEASE_LIMIT_MS;
  for (;;) {
    const result = await control.command(UBLK_U_CMD_START_USER_RECOVERY, { device: info.id });
    if (result >= 0) return;
    // The driver refuses while another server takes over, and until the last one is gone.
    const server = processServing(info);
    // A server has ended after this command and before the driver had the tags of any queue.
    if (result === -errno.EINVAL && server === undefined && !isMended) {
      isMended = true;
      await completeQueues(info);
      continue;
    }
    const now = await deviceInfo(control, info.id);
    if (now?.state === UBLK_S_DEV_LIVE) throw new UserError(whyTaken(path, now));
    const isPassing = result === -errno.EBUSY || (result === -errno.EINVAL && server !== undefined);
    if (!isPassing) unwrap(result, `recovery of ${path}`);
    if (performance.now() > deadline) throw new UserError(whyNotBegun(path, server));
    await Bun.sleep(POLL_MS);
  }
}

/**
 * Hands the driver tags for all queues that lack them, from a process that ends at once: for the driver, a server that
 * had begun is now gone, and another one can take over. It refuses tags for the other queues.
 * @param fd /dev/ublkcN, if it is open here, because then nobody else can open it.
 */
export async function completeQueues({ id, queues, queueDepth }: DeviceInfo, fd?: number): Promise<void> {
  const file = fd ?? (await openWhenFree(id));
  try {
    for (let queue = 0; queue < queues; queue += 1) await completeQueue(file, queue, queueDepth);
  } finally {
    if (fd === undefined) close(file);
  }
}

async function completeQueue(fd: number, queue: number, depth: number): Promise<void> {
  const ring = new Ring(depth, 0);
  try {
    const commands = new TagCommands(ring, queue, depth);
    commands.setFile(SUBJECT_FD);
    for (let tag = 0; tag < depth; tag += 1) {
      commands.setAddress(tag, ANY_ADDRESS);
      commands.fetch(tag);
    }
    await submitAndLeave(ring, fd, commands, depth);
  } finally {
    ring.close();
  }
}

async function submitAndLeave(ring: Ring, fd: number, commands: TagCommands, depth: number): Promise<void> {
  try {
    const helper = submitApart(ring, fd, depth, 0);
    const deadline = performance.now() + HELPER_LIMIT_MS;
    while (helper.exitCode === null && helper.signalCode === null && performance.now() < deadline)
      await Bun.sleep(1);
  } catch {
    // No other process can start. This one will not end at once, about which the driver complains in dmesg.
    commands.setFile(fd);
    unwrap(ring.enter(0), "io_uring_enter");
  }
}

/** The last server may not have closed it yet. @throws ErrnoError */
async function openWhenFree(id: number): Promise<number> {
  const deadline = performance.now() + RELEASE_LIMIT_MS;
  for (;;) {
    const fd = open(`/dev/ublkc${id}`, O_RDWR);
    if (fd !== -errno.EBUSY) return unwrap(fd, `open /dev/ublkc${id}`);
    const server = processServing({ id, pid: 0 });
    if (performance.now() > deadline) throw new UserError(whyNotBegun(`/dev/${blockName(id)}`, server));
    await Bun.sleep(POLL_MS);
  }
}

function whyNotBegun(path: string, server: number | undefined): string {
  if (server === undefined)
    return `${path} cannot be resumed: the driver has not let go of its last server, try again`;
  return `${path} is being taken over by process ${server}, "${commandOf(server) ?? "another program"}": leave it to that one`;
}
