/** Mounts that this process does not see: those of other mount namespaces, of containers and services for example. */
import { readAttribute } from "../libc/sysfs.ts";
import { mountsOf } from "./node-state.ts";
import { linkTarget, processIds } from "./openers.ts";

export interface DistantMount {
  /** As the namespace's processes name it. */
  readonly point: string;
  /** One of these processes. */
  readonly pid: number;
  readonly command: string;
}

/** Where else a disk or a partition is mounted. A namespace without a process, or not for us to see, is passed over. */
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
