/**
 * What a device that outlives its server is, for whoever would take it over: the driver has no room for a text, so it
 * is in a file beside, which also names the boot and the stamp of the device. What is left of another device of that
 * number is not believed.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { messageOf, UserError } from "../errors.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { makeRunDirectory, runPath } from "../nodes/run-file.ts";
import type { DeviceInfo } from "./control/device-info.ts";

type Recorded = Pick<DeviceInfo, "id" | "stamp">;

/** To be called before the device can be used: it is there whenever its server is killed then. @throws UserError */
export function writeRecord(device: Recorded, identity: string): void {
  const path = pathOf(device.id);
  const next = inCurrentRoot(`${path}.new`);
  try {
    makeRunDirectory();
    writeFileSync(next, `${startOf(device)}\n${identity}\n`, { mode: 0o600 });
    renameSync(next, inCurrentRoot(path));
  } catch (error) {
    throw new UserError(
      `${path} cannot be written, where the device's identity is kept (${messageOf(error)}): mend that, or leave out --recover`,
      { cause: error },
    );
  }
}

/** Undefined where nothing is known of this very device, or it may not be read. */
export function readRecord(device: Recorded): string | undefined {
  if (device.stamp === undefined) return undefined;
  const [start, identity] = (readAttribute(pathOf(device.id)) ?? "").split("\n");
  return start === startOf(device) ? identity : undefined;
}

/** While the device has its number still: afterwards the file may be another one's. */
export function removeRecord(id: number): void {
  try {
    for (const path of [pathOf(id), `${pathOf(id)}.new`]) rmSync(inCurrentRoot(path), { force: true });
  } catch {
    // A file system that has become read-only, say: what stays there is not believed.
  }
}

function pathOf(id: number): string {
  return runPath(`ublkb${id}`);
}

function startOf({ stamp }: Recorded): string {
  return `${readAttribute("/proc/sys/kernel/random/boot_id") ?? "-"} ${stamp}`;
}
