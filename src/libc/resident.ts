/**
 * Keeps a process in memory, but not everything that it has reserved: the runtime reserves gigabytes, and locking those
 * would use up a machine. What it has touched stays, and what it will need when memory is short is touched beforehand.
 */
import { readFileSync } from "node:fs";
import { errno } from "../uapi/errno.ts";
import { MADV_POPULATE_READ, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT } from "../uapi/mman.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";

/** mlockall(2) of whatever is touched, now and later. Returns 0, -EPERM, or -ENOMEM for RLIMIT_MEMLOCK. */
export function lockWhatIsTouched(): number {
  return negativeErrno(libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
}

/**
 * Touches all machine code of the program and its libraries: to fetch it from its file when there is no memory is to
 * wait for memory. Before Linux 5.14, which cannot, the code that has run stays.
 * @throws ErrnoError when there is not enough memory.
 */
export function touchCode(): void {
  for (const [start, end] of codeRanges(readFileSync("/proc/self/maps", "utf8"))) {
    const result = negativeErrno(libc.madvise(start, end - start, MADV_POPULATE_READ));
    if (result !== -errno.EINVAL) unwrap(result, "madvise(MADV_POPULATE_READ)");
  }
}

/** proc_pid_maps(5): the addresses of what is mapped from files to be executed. */
export function codeRanges(maps: string): (readonly [start: number, end: number])[] {
  const lines = maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9]\d* +\//gm);
  return Array.from(lines, ([, start = "", end = ""]) => [parseInt(start, 16), parseInt(end, 16)]);
}
