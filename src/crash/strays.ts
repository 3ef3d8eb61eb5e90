/** Processes that a checker has left behind, and that would write to the next state. */
import { readFileSync } from "node:fs";
import type { Subprocess } from "bun";
import { errnoOf } from "../errors.ts";
import { OtherProcess } from "../libc/pidfd.ts";
import { reap, setSubreaper } from "../libc/process.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { isTinyProgram } from "../libc/tiny-program.ts";
import { processIds } from "../nodes/openers.ts";
import { errno } from "../uapi/errno.ts";

/** Milliseconds. A process that waits for a disk ends when that has answered. */
const END_MS = 5000;
const RETRY_MS = 1;

/** From now on what a checker leaves becomes a child of this process, by which it is found. */
export function adoptStrays(): void {
  setSubreaper();
}

/**
 * Ends those that a checker has left, and those that they leave.
 * @param scratch what it had as $TSBUSE_SCRATCH.
 * @returns whether none is there any more.
 */
export async function endStrays(scratch: string): Promise<boolean> {
  const deadline = performance.now() + END_MS;
  const ended = new Set<number>();
  for (;;) {
    let left = 0;
    for (const pid of childIds()) {
      if (isOrphanZombie(pid)) {
        reap(pid);
        // Another one may get its number at once.
        ended.delete(pid);
      } else if (ended.has(pid) || environmentOf(pid).includes(`TSBUSE_SCRATCH=${scratch}`)) {
        left += 1;
        ended.add(pid);
        kill(pid);
      }
    }
    if (left === 0) return true;
    if (performance.now() >= deadline) return false;
    await Bun.sleep(RETRY_MS);
  }
}

/** Leaders of sessions that this process has started itself. */
const awaited = new Set<number>();

/** The runtime waits for this one, as it does for tiny programs, and for what is of this process's own session. */
export function awaitItself({ pid, exited }: Subprocess): void {
  awaited.add(pid);
  void exited.finally(() => awaited.delete(pid));
}

function isOrphanZombie(pid: number): boolean {
  const { state, session } = statusOf(pid);
  return state === "Z" && session !== ownSession && !awaited.has(pid) && !isTinyProgram(pid);
}

/** proc_pid_stat(5). */
function statusOf(pid: number): { readonly state: string; readonly session: number } {
  const text = readAttribute(`/proc/${pid}/stat`) ?? "";
  // The name of the program before it may have anything in it.
  const [state = "", , , session = "0"] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state, session: Number(session) };
}

const ownSession = statusOf(process.pid).session;

/** Ends the checkers of a run that was killed. @param directory of the run. */
export function endThoseOf(directory: string): void {
  const sign = `TSBUSE_SCRATCH=${directory}/`;
  const isOfRun = (pid: number): boolean => environmentOf(pid).some((each) => each.startsWith(sign));
  for (const pid of processIds()) {
    if (!isOfRun(pid)) continue;
    try {
      using found = new OtherProcess(pid);
      // Its number may have become another one's.
      if (isOfRun(pid)) found.kill();
    } catch (error) {
      if (errnoOf(error) !== errno.ESRCH) throw error;
    }
  }
}

/** Those of the main thread, which is the one that starts processes, and gets those of others. */
function childIds(): number[] {
  const text = readAttribute(`/proc/self/task/${process.pid}/children`) ?? "";
  return text
    .split(" ")
    .filter((each) => each !== "")
    .map(Number);
}

/** None for a process that has ended, or is not ours to look at. */
function environmentOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
  } catch {
    return [];
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
