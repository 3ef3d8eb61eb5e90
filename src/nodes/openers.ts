/** Who has a file open, as far as /proc shows it to this process. */
import { readdirSync, readlinkSync } from "node:fs";
import { attributeNames, readAttribute } from "../libc/sysfs.ts";
import { inCurrentRoot } from "../libc/root.ts";

/** PROC_PID_INIT_INO: the namespace that has all processes. */
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";

/**
 * The name of the process that keeps a node open for its server and is not a user: see nbd/node/guardian.ts. systemd
 * spares processes whose name begins with this character when it changes the root or shuts down; this one ends with
 * its server.
 */
export const GUARDIAN_NAME = "@tsbuse (guards a node)";

/** The name of the process that has a node open to write it back: see apart.ts. */
export const APART_NAME = "@tsbuse (writes back)";

/** Whether the process IDs that a driver reports are those of our /proc. */
export function isInitialPidNamespace(): boolean {
  return linkTarget("/proc/self/ns/pid") === INITIAL_PID_NAMESPACE;
}

/**
 * Whether this process sees every process in /proc, with the files that it has open: what is not there does not exist.
 * A process that may look into the first one may look into all (ptrace(2)).
 */
export function seesAllProcesses(): boolean {
  return isInitialPidNamespace() && hasOpen(1, "/dev/null") !== undefined;
}

/** `cat (process 123)` for each process other than this one and those left out. */
export function openersOf(path: string, leftOut: readonly (number | undefined)[] = []): string[] {
  return processesWith(path)
    .filter((pid) => pid !== process.pid && !leftOut.includes(pid) && !isOurs(pid))
    .map((pid) => `${readAttribute(`/proc/${pid}/comm`) ?? "a program"} (process ${pid})`);
}

function isOurs(pid: number): boolean {
  const name = readAttribute(`/proc/${pid}/cmdline`)?.split("\0")[0];
  return name === GUARDIAN_NAME || name === APART_NAME;
}

/** All processes that have it open, this one included. */
export function processesWith(path: string): number[] {
  return processIds().filter((pid) => hasOpen(pid, path) === true);
}

/** The IDs of all visible processes. */
export function processIds(): number[] {
  return attributeNames("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number);
}

/** Whether a process has the file open; undefined if we may not know. */
export function hasOpen(pid: number, path: string): boolean | undefined {
  const directory = inCurrentRoot(`/proc/${pid}/fd`);
  // A process that has ended has nothing open. CAP_DAC_READ_SEARCH shows the names, but not what they link to.
  let otherwise: false | undefined = false;
  try {
    for (const fd of readdirSync(directory)) {
      try {
        if (isPath(readlinkSync(`${directory}/${fd}`), path)) return true;
      } catch (error) {
        if (isHidden(error)) otherwise = undefined;
      }
    }
  } catch (error) {
    if (isHidden(error)) otherwise = undefined;
  }
  return otherwise;
}

function isHidden(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EACCES";
}

/** A node that is gone from /dev is shown as deleted; one in another root is shown with the path above that root. */
function isPath(target: string, path: string): boolean {
  return target.replace(/ \(deleted\)$/, "").endsWith(path);
}

/** Undefined if it is gone, or if we may not see it. */
export function linkTarget(link: string): string | undefined {
  try {
    return readlinkSync(inCurrentRoot(link));
  } catch {
    return undefined;
  }
}
