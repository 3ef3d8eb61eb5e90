/** The resources of this process: proc(5). */
import { readdirSync, readlinkSync } from "node:fs";

export interface OwnUse {
  readonly threads: number;
  readonly descriptors: number;
}

export function ownUse(): OwnUse {
  return {
    threads: readdirSync("/proc/self/task").length,
    descriptors: readdirSync("/proc/self/fd").length,
  };
}

/** What each file descriptor stands for: a path, or `anon_inode:[io_uring]`. */
export function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // Closed meanwhile, as the one by which the directory was read.
      return [];
    }
  });
}
