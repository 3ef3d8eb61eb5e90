/** The end of a device: stopping it, and taking it out of the driver. */
import { openersOf } from "../../nodes/openers.ts";
import { errno } from "../../uapi/errno.ts";
import { UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_STOP_DEV } from "../../uapi/ublk_cmd.ts";
import { removeRecord } from "../record.ts";
import { blockName, deviceInfo } from "../nodes.ts";
import type { Commands } from "./control.ts";
import type { DeviceInfo } from "./device-info.ts";

/** How long a deleted device is watched until its last user has let go of it. */
const GONE_LIMIT_MS = 200;
const POLL_MS = 5;

/**
 * Writes the page cache back, fails what comes afterwards, and makes the driver take all tags back, so that the queues
 * end. Returns 0, or -errno: -ETIMEDOUT when the server did not answer what was in flight.
 */
export function stopDevice(control: Commands, id: number, limitMs: number): Promise<number> {
  return control.commandApart(UBLK_U_CMD_STOP_DEV, { device: id, limitMs });
}

/** Its number is free again when nobody has its node open, nor the one by which it was served. */
export async function deleteDevice(control: Commands, id: number, limitMs: number): Promise<void> {
  const about = { device: id, limitMs };
  removeRecord(id);
  const result = await control.commandApart(UBLK_U_CMD_DEL_DEV_ASYNC, about);
  // The driver before Linux 6.9 only has the command that waits for the last user.
  if (result === -errno.EOPNOTSUPP || result === -errno.EINVAL)
    await control.commandApart(UBLK_U_CMD_DEL_DEV, about);
}

/** Deletes the device with this stamp: its number may be another one's by now. `log` gets a line if somebody has it. */
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
