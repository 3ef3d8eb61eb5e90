/** Makes sure that the ublk driver is loaded and has the required features, as far as this process may. */
import { ensureNode } from "../nodes/device-node.ts";
import { UserError } from "../errors.ts";
import {
  UBLK_F_USER_RECOVERY,
  UBLK_F_USER_RECOVERY_REISSUE,
  UBLK_FEATURES_LEN,
  UBLK_U_CMD_GET_FEATURES,
} from "../uapi/ublk_cmd.ts";
import { ensureModule } from "../kmod/ensure.ts";
import { errorText } from "../libc/errno.ts";
import { CONTROL_PATH, type Commands } from "./control/control.ts";

/** Loads the driver and makes its node if they are missing. @throws UserError */
export async function loadUblk(): Promise<void> {
  await ensureModule("ublk_drv");
  ensureNode(CONTROL_PATH, "character", "/sys/class/misc/ublk-control/dev");
}

/**
 * Asks the driver for its features.
 * @returns UBLK_F_* flags, as far as they fit in 32 bits.
 * @throws UserError if it is too old to answer.
 */
export async function ublkFeatures(control: Commands): Promise<number> {
  const buffer = new Uint8Array(new ArrayBuffer(UBLK_FEATURES_LEN));
  const result = await control.command(UBLK_U_CMD_GET_FEATURES, { buffer });
  if (result < 0) {
    throw new UserError(
      `${CONTROL_PATH} does not say what the driver can do (${errorText(-result)}): use Linux 6.5 or newer, or an NBD node`,
    );
  }
  return new DataView(buffer.buffer).getUint32(0, true);
}

/** The flags that let a device outlive its server. @throws UserError if this driver does not support that. */
export function recoveryFlags(features: number): number {
  const flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;
  if ((features & flags) === flags) return flags;
  throw new UserError(
    "the ublk driver of this kernel cannot recover: leave out --recover, or use Linux 6.1 or newer",
  );
}
