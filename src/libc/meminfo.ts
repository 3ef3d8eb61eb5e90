/** The system's memory: proc_meminfo(5). */
import { readAttribute } from "./sysfs.ts";

/** Bytes. */
export interface MemoryInfo {
  readonly total: number;
  /** What can be had without swapping. */
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
  const bytes = (field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1] ?? 0) * 1024;
  return {
    total: bytes("MemTotal"),
    available: bytes("MemAvailable"),
    swapTotal: bytes("SwapTotal"),
    swapFree: bytes("SwapFree"),
    commitLimit: bytes("CommitLimit"),
    committed: bytes("Committed_AS"),
  };
}
