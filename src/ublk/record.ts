/**
 * The identity of a device that outlives its server, for the process that takes it over. The driver has no room for a
 * text, so a file holds it, which also names the boot and the stamp of the device. A file left by another device with
 * that number is ignored.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { messageOf, UserError } from "../errors.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { makeRunDirectory, runPath } from "../nodes/run-file.ts";
import type { DeviceInfo } from "./control/device-info.ts";

type Recorded = Pick<DeviceInfo, "id" | "stamp">;

/** Call it before the device can be used, so that it exists whenever the server is killed. @throws UserError */
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

/** Undefined if nothing is known of this very device, or the file may not be read. */
export function readRecord(device: Recorded): string | undefined {
  if (device.stamp === undefined) return undefined;
  const [start, identity] = (readAttribute(pathOf(device.id)) ?? "").split("\n");
  return start === startOf(device) ? identity : undefined;
}

/** Call it while the device still has its number: afterwards the file may belong to another device. */
export function removeRecord(id: number): void {
  try {
    for (const path of [pathOf(id), `${pathOf(id)}.new`]) rmSync(inCurrentRoot(path), { force: true });
  } catch {
    // For example, the file system has become read-only: the file that stays is ignored.
  }
}

function pathOf(id: number): string {
  return runPath(`ublkb${id}`);
}

function startOf({ stamp }: Recorded): string {
  return `${readAttribute("/proc/sys/kernel/random/boot_id") ?? "-"} ${stamp}`;
}
