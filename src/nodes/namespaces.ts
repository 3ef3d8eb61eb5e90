/** Mounts in other mount namespaces, which this process does not see: in containers and services, for example. */
import { readAttribute } from "../libc/sysfs.ts";
import { mountsOf } from "./node-state.ts";
import { linkTarget, processIds } from "./openers.ts";

export interface DistantMount {
  /** The path as the namespace's processes see it. */
  readonly point: string;
  /** One of these processes. */
  readonly pid: number;
  readonly command: string;
}

/** Where else a disk or a partition is mounted. Skips namespaces without a process and those that we may not see. */
export function findDistantMount(name: string): DistantMount | undefined {
  const seen = new Set([linkTarget("/proc/self/ns/mnt"), undefined]);
  for (const pid of processIds()) {
    const namespace = linkTarget(`/proc/${pid}/ns/mnt`);
    if (seen.has(namespace)) continue;
    seen.add(namespace);
    const [point] = mountsOf(name, `/proc/${pid}/mountinfo`);
    if (point !== undefined)
      return { point, pid, command: readAttribute(`/proc/${pid}/comm`) ?? "a program" };
  }
  return undefined;
}
