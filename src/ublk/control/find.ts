/** Finds the device for a server: one that waits for it, or a new one. */
import type { Dispatch } from "../../dispatch.ts";
import { seesAllProcesses } from "../../nodes/openers.ts";
import { UBLK_F_USER_RECOVERY, UBLK_S_DEV_LIVE, UBLK_S_DEV_QUIESCED } from "../../uapi/ublk_cmd.ts";
import { deviceInfo, processServing, ublkIds } from "../nodes.ts";
import type { UblkOptions } from "../options.ts";
import { readRecord } from "../record.ts";
import type { Commands } from "./control.ts";
import type { DeviceInfo } from "./device-info.ts";
import { makeDevice } from "./set-up.ts";
import { findWaiting } from "./take-over.ts";

export interface FoundDevice {
  readonly info: DeviceInfo;
  /** It waits for a server and may have users: we must not end it before we serve it. */
  readonly waits: boolean;
}

/**
 * With `resume` a waiting device, with `recover` a waiting device if there is one, otherwise a new one.
 * @param target its number; undefined for any, which with `recover` is the waiting one with this identity.
 * @throws UserError
 */
export async function findDevice(
  control: Commands,
  target: number | undefined,
  dispatch: Dispatch,
  options: UblkOptions,
): Promise<FoundDevice> {
  const { recover, resume } = options;
  const waiting = recover === true ? await waitingNumber(control, target, dispatch.identity) : undefined;
  if (resume === true || waiting !== undefined)
    return { info: await findWaiting(control, waiting ?? target, dispatch, options), waits: true };
  return { info: await makeDevice(control, target, dispatch, options), waits: false };
}

/** The number of the device if it waits; without a number, of a waiting device with this identity. */
async function waitingNumber(
  control: Commands,
  target: number | undefined,
  identity: string | undefined,
): Promise<number | undefined> {
  for (const id of target === undefined ? ublkIds() : [target]) {
    const info = await deviceInfo(control, id);
    if (info === undefined || !isWaiting(info)) continue;
    if (target !== undefined || readRecord(info) === identity) return id;
  }
  return undefined;
}

/** True even before the driver has noticed that the server is gone. */
function isWaiting(info: DeviceInfo): boolean {
  if ((info.flags & UBLK_F_USER_RECOVERY) === 0) return false;
  if (info.state === UBLK_S_DEV_QUIESCED) return true;
  return info.state === UBLK_S_DEV_LIVE && seesAllProcesses() && processServing(info) === undefined;
}
