/** Changes the size of a device in use. */
import { UserError } from "../../errors.ts";
import { unwrap } from "../../libc/errno.ts";
import { UBLK_F_UPDATE_SIZE, UBLK_U_CMD_UPDATE_SIZE } from "../../uapi/ublk_cmd.ts";
import { ublkFeatures } from "../driver.ts";
import { blockName } from "../nodes.ts";
import type { Commands } from "./control.ts";
import type { DeviceInfo } from "./device-info.ts";

/** The driver's unit, in bytes. */
const SECTOR_BYTES = 512;

/** @throws UserError if the driver cannot change the size. */
export async function checkSizeUpdates(control: Commands, path: string): Promise<void> {
  if (((await ublkFeatures(control)) & UBLK_F_UPDATE_SIZE) !== 0) return;
  throw new UserError(
    `${path} cannot be resized: the ublk driver of this kernel cannot, use Linux 6.16 or newer, or an NBD node`,
  );
}

/** Returns when users of the node see the new size. @param size bytes, whole blocks. @throws ErrnoError */
export async function updateSize(control: Commands, { id }: DeviceInfo, size: number): Promise<void> {
  const about = { device: id, data: size / SECTOR_BYTES };
  unwrap(await control.command(UBLK_U_CMD_UPDATE_SIZE, about), `size of /dev/${blockName(id)}`);
}
