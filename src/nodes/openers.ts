/** Who has a file open, as far as /proc shows it to this process. */
import { readdirSync, readlinkSync } from "node:fs";
import { readAttribute } from "../libc/sysfs.ts";

/** `cat (process 123)` for each process other than this one. */
export function openersOf(path: string): string[] {
  return list("/proc")
    .filter((entry) => /^\d+$/.test(entry) && entry !== String(process.pid))
    .filter((pid) => list(`/proc/${pid}/fd`).some((fd) => isLink(`/proc/${pid}/fd/${fd}`, path)))
    .map((pid) => `${readAttribute(`/proc/${pid}/comm`) ?? "a program"} (process ${pid})`);
}

/** A node that is gone from /dev is shown as deleted. */
function isLink(link: string, path: string): boolean {
  try {
    const target = readlinkSync(link);
    return target === path || target === `${path} (deleted)`;
  } catch {
    // Closed meanwhile, or not for us to see.
    return false;
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // The process has ended, or is not ours to look into.
    return [];
  }
}
