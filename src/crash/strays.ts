/** Processes that a checker left behind, which would write to the next state. */
import { readFileSync } from "node:fs";
import type { Subprocess } from "bun";
import { errnoOf } from "../errors.ts";
import { OtherProcess } from "../libc/pidfd.ts";
import { reap, setSubreaper } from "../libc/process.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { isTinyProgram } from "../libc/tiny-program.ts";
import { processIds } from "../nodes/openers.ts";
import { errno } from "../uapi/errno.ts";

/** Milliseconds: a process that waits for a disk ends only when that has answered. */
const END_MS = 5000;
const RETRY_MS = 1;

/** From now on processes that a checker leaves become children of this process, so that it can find them. */
export function adoptStrays(): void {
  setSubreaper();
}

/**
 * Ends the processes that a checker left, and those that they leave in turn.
 * @param scratch the checker's $TSBUSE_SCRATCH.
 * @returns whether all are gone.
 */
export async function endStrays(scratch: string): Promise<boolean> {
  const deadline = performance.now() + END_MS;
  const ended = new Set<number>();
  for (;;) {
    let left = 0;
    for (const pid of childIds()) {
      if (isOrphanZombie(pid)) {
        reap(pid);
        // Another process may get the number at once.
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

/** Leaders of sessions that this process started itself. */
const awaited = new Set<number>();

/** Leaves a process to the runtime to reap, like tiny programs and all processes of this process's own session. */
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
  // The program's name, before this, may contain anything.
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
      // Another process may have got the number.
      if (isOfRun(pid)) found.kill();
    } catch (error) {
      if (errnoOf(error) !== errno.ESRCH) throw error;
    }
  }
}

/** The children of the main thread, which starts all processes and gets the orphans. */
function childIds(): number[] {
  const text = readAttribute(`/proc/self/task/${process.pid}/children`) ?? "";
  return text
    .split(" ")
    .filter((each) => each !== "")
    .map(Number);
}

/** Empty for a process that has ended, or whose environment we may not read. */
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
    // It has ended already.
  }
}
