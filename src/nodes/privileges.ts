/** What this process may do. */
import { readAttribute } from "../libc/sysfs.ts";
import { CAP_SYS_ADMIN } from "../uapi/capability.ts";

/** Whether this process may attach devices: the drivers ask for CAP_SYS_ADMIN. */
export function isPrivileged(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readAttribute("/proc/self/status") ?? "")?.[1];
  // Without /proc we cannot know, and the driver has the last word.
  if (effective === undefined) return true;
  return ((BigInt(`0x${effective}`) >> BigInt(CAP_SYS_ADMIN)) & 1n) === 1n;
}
