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

/** The target of each file descriptor: a path, or `anon_inode:[io_uring]`. */
export function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // Closed meanwhile, like the one that read the directory.
      return [];
    }
  });
}
