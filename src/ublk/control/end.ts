/** Ends a device: stops it, and removes it from the driver. */
import { openersOf } from "../../nodes/openers.ts";
import { errno } from "../../uapi/errno.ts";
import { UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_STOP_DEV } from "../../uapi/ublk_cmd.ts";
import { removeRecord } from "../record.ts";
import { blockName, deviceInfo } from "../nodes.ts";
import type { Commands } from "./control.ts";
import type { DeviceInfo } from "./device-info.ts";

/** How long to wait until the last user of a deleted device has closed it. */
const GONE_LIMIT_MS = 200;
const POLL_MS = 5;

/**
 * Writes back the page cache, fails later requests, and makes the driver take back all tags, so that the queues end.
 * Returns 0, or -errno: -ETIMEDOUT if the server did not answer the requests in flight.
 */
export function stopDevice(control: Commands, id: number, limitMs: number): Promise<number> {
  return control.commandApart(UBLK_U_CMD_STOP_DEV, { device: id, limitMs });
}

/** Its number is free again once nobody has its node open, nor its character device. */
export async function deleteDevice(control: Commands, id: number, limitMs: number): Promise<void> {
  const about = { device: id, limitMs };
  removeRecord(id);
  const result = await control.commandApart(UBLK_U_CMD_DEL_DEV_ASYNC, about);
  // Before Linux 6.9 the driver only has the command that waits for the last user.
  if (result === -errno.EOPNOTSUPP || result === -errno.EINVAL)
    await control.commandApart(UBLK_U_CMD_DEL_DEV, about);
}

/** Deletes the device if it has this stamp: its number may be reused by now. `log` gets a line if it is in use. */
export async function deleteOwn(
  control: Commands,
  { id, stamp }: DeviceInfo,
  limitMs: number,
  log?: (line: string) => void,
): Promise<void> {
  if ((await deviceInfo(control, id))?.stamp !== stamp) return;
  await deleteDevice(control, id, limitMs);
  const deadline = performance.now() + GONE_LIMIT_MS;
  while (performance.now() < deadline) {
    if ((await deviceInfo(control, id)) === undefined) return;
    await Bun.sleep(POLL_MS);
  }
  const path = `/dev/${blockName(id)}`;
  const openers = openersOf(path);
  if (openers.length > 0)
    log?.(`${path} is gone, but its number is taken until ${openers.join(", ")} closes it`);
}
