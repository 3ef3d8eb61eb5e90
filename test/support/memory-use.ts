/** The memory of this process as the kernel counts it: proc_pid_status(5). All numbers are bytes. */
import { readFileSync } from "node:fs";

export interface MemoryUse {
  readonly virtual: number;
  readonly virtualPeak: number;
  readonly resident: number;
  readonly residentPeak: number;
}

export function memoryUse(): MemoryUse {
  // statm and VmRSS lag behind by what each thread keeps to itself; smaps_rollup counts pages.
  const rollup = readFileSync("/proc/self/smaps_rollup", "utf8");
  const status = readFileSync("/proc/self/status", "utf8");
  return {
    virtual: field(status, "VmSize"),
    virtualPeak: field(status, "VmPeak"),
    resident: field(rollup, "Rss"),
    residentPeak: field(status, "VmHWM"),
  };
}

function field(text: string, name: string): number {
  const kibibytes = new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(text)?.[1];
  if (kibibytes === undefined) throw new Error(`no ${name} in ${text}`);
  return Number(kibibytes) * 1024;
}
