/** What the processes of a server use, from proc(5). */
import { existsSync, readdirSync, readFileSync } from "node:fs";

/** USER_HZ, the unit of times in /proc: 100 on every architecture of Debian. */
const TICKS_PER_SECOND = 100;
const KIB = 1024;

/** A process and its descendants: some servers fork for each client. */
function treeOf(pid: number): number[] {
  const children = tasksOf(pid)
    .flatMap((task) => read(`/proc/${pid}/task/${task}/children`).trim().split(" "))
    .filter((word) => word !== "");
  return [pid, ...children.flatMap((child) => treeOf(Number(child)))];
}

/** Processor time of a server so far, user and system, in microseconds: all its threads, and its children. */
export function cpuMicroseconds(pid: number): number {
  const ticks = treeOf(pid).flatMap((one) => {
    // The name, in parentheses, may contain anything; utime, stime, cutime and cstime are fields 14 to 17.
    const fields = read(`/proc/${one}/stat`)
      .replace(/^.*\) /s, "")
      .split(" ");
    return fields.slice(11, 15).map(Number);
  });
  return ticks.reduce((sum, each) => sum + each, 0) * (1_000_000 / TICKS_PER_SECOND);
}

/** The peak resident memory of a server, in bytes. */
export function peakResidentBytes(pid: number): number {
  const peaks = treeOf(pid).map(
    (one) => /^VmHWM:\s*(\d+) kB$/m.exec(read(`/proc/${one}/status`))?.[1] ?? "0",
  );
  return peaks.reduce((sum, each) => sum + Number(each), 0) * KIB;
}

function tasksOf(pid: number): string[] {
  return existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : [];
}

/** Empty if the process or its child has ended meanwhile. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Whether a process that is not our child still runs. */
export function isRunning(pid: number): boolean {
  return read(`/proc/${pid}/stat`) !== "" && !/^State:\s*Z/m.test(read(`/proc/${pid}/status`));
}
