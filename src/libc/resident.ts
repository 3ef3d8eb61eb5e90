/**
 * Keeps a process in memory, but not everything that it has reserved: the runtime reserves gigabytes, and locking them
 * would use up a machine's memory. Pages that were touched stay, and pages needed when memory is short are touched
 * beforehand.
 */
import { readFileSync } from "node:fs";
import { errno } from "../uapi/errno.ts";
import { MADV_POPULATE_READ, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT } from "../uapi/mman.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";

/** mlockall(2) of all pages touched, now or later. Returns 0, -EPERM, or -ENOMEM for RLIMIT_MEMLOCK. */
export function lockWhatIsTouched(): number {
  return negativeErrno(libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
}

/**
 * Touches all machine code of the program and its libraries, because reading it from its file when memory is short
 * would wait for memory. Linux before 5.14 cannot do this: there only the code that has run stays in memory.
 * @throws ErrnoError if memory is short.
 */
export function touchCode(): void {
  for (const [start, end] of codeRanges(readFileSync("/proc/self/maps", "utf8"))) {
    const result = negativeErrno(libc.madvise(start, end - start, MADV_POPULATE_READ));
    if (result !== -errno.EINVAL) unwrap(result, "madvise(MADV_POPULATE_READ)");
  }
}

/** proc_pid_maps(5): the addresses of executable mappings of files. */
export function codeRanges(maps: string): (readonly [start: number, end: number])[] {
  const lines = maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9]\d* +\//gm);
  return Array.from(lines, ([, start = "", end = ""]) => [parseInt(start, 16), parseInt(end, 16)]);
}
