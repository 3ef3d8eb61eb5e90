/** What this process has of the system: proc(5). */
import { readdirSync } from "node:fs";

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
