/** After a fault: restores the system to its state before the step, as far as possible. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CGROUP } from "./acts.ts";
import { Fault, Program, until } from "./process.ts";
import { BINARY, MOUNT_POINT, STORE, WORK } from "./stage.ts";
import { devices, mountsBelow, processesOf, processesWith } from "./watch.ts";

const CLEANUP_MS = 20_000;

/** @throws Fault if something stays, which would disturb the next steps. */
export async function cleanUp(log: string): Promise<void> {
  const freeze = join(CGROUP, "cgroup.freeze");
  if (existsSync(freeze)) writeFileSync(freeze, "0");
  for (const pid of [...processesOf(BINARY), ...processesWith(WORK)]) kill(pid);
  for (const point of [MOUNT_POINT, STORE])
    if (mountsBelow(WORK).includes(point)) await new Program(["umount", "-l", point], log).ended(CLEANUP_MS);
  await until("no process is left", () => processesOf(BINARY).length === 0, CLEANUP_MS);
  for (const name of devices()) {
    const node = `/dev/${name.replace("ublkc", "ublkb")}`;
    await new Program([BINARY, "disconnect", node, "--force"], log).ended(CLEANUP_MS);
  }
  if (devices().length > 0) throw new Fault(`still attached: ${devices().join(", ")}`);
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    // The process has ended meanwhile.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}
