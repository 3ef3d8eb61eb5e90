/** The system's memory: proc_meminfo(5). */
import { readAttribute, readNumber } from "./sysfs.ts";

/** Bytes. */
export interface MemoryInfo {
  readonly total: number;
  /** What is available without swapping. */
  readonly available: number;
  readonly swapTotal: number;
  readonly swapFree: number;
  /** What can be promised, and has been, under vm.overcommit_memory=2. */
  readonly commitLimit: number;
  readonly committed: number;
}

/** Undefined where there is no /proc. */
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
 * Bytes that the system still promises to a process of root's; Infinity where it does not count them, which is so
 * unless vm.overcommit_memory is 2.
 */
export function commitRoom({ commitLimit, committed }: MemoryInfo): number {
  if (readNumber("/proc/sys/vm/overcommit_memory") !== 2) return Number.POSITIVE_INFINITY;
  return commitLimit - committed - (readNumber("/proc/sys/vm/user_reserve_kbytes") ?? 0) * 1024;
}
