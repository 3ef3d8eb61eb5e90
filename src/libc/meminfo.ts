/** The system's memory: proc_meminfo(5). */
import { readAttribute, readNumber } from "./sysfs.ts";

/** Bytes. */
export interface MemoryInfo {
  readonly total: number;
  /** What is available without swapping. */
  readonly available: number;
  readonly swapTotal: number;
  readonly swapFree: number;
  /** How much memory the system may commit, and has committed, with vm.overcommit_memory=2. */
  readonly commitLimit: number;
  readonly committed: number;
}

/** Undefined without /proc. */
export function memoryInfo(): MemoryInfo | undefined {
  const text = readAttribute("/proc/meminfo");
  if (text === undefined) return undefined;
  const bytes = (field: RegExp): number => Number(field.exec(text)?.[1] ?? 0) * 1024;
  return {
    total: bytes(/^MemTotal:\s+(\d+) kB$/m),
    available: bytes(/^MemAvailable:\s+(\d+) kB$/m),
    swapTotal: bytes(/^SwapTotal:\s+(\d+) kB$/m),
    swapFree: bytes(/^SwapFree:\s+(\d+) kB$/m),
    commitLimit: bytes(/^CommitLimit:\s+(\d+) kB$/m),
    committed: bytes(/^Committed_AS:\s+(\d+) kB$/m),
  };
}

/**
 * Bytes that the system can still commit to a process of root; Infinity unless vm.overcommit_memory is 2, because the
 * system then has no limit.
 */
export function commitRoom({ commitLimit, committed }: MemoryInfo): number {
  if (readNumber("/proc/sys/vm/overcommit_memory") !== 2) return Number.POSITIVE_INFINITY;
  return commitLimit - committed - (readNumber("/proc/sys/vm/user_reserve_kbytes") ?? 0) * 1024;
}
