/** What the system has apart from this process, to find out whether something was left behind: proc(5), sysfs(5). */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { openFiles } from "./own-use.ts";

export interface SystemUse {
  /** `bun`, `sh`: the running programs, except this one and the kernel's threads. */
  readonly processes: readonly string[];
  /** Their threads. */
  readonly threads: number;
  /** Their file descriptors. */
  readonly descriptors: number;
  /** Unix sockets, including those that only the kernel has open, but not those of this process. */
  readonly sockets: number;
  /** Memory in files, including files without a name, in KiB. */
  readonly sharedKib: number;
  /** `nbd0: 0`: block devices with their sizes in sectors, and the drivers' other devices. */
  readonly devices: readonly string[];
  /** Files by which servers are found, and device nodes. */
  readonly names: readonly string[];
}

/** The kernel's threads are children of kthreadd, which is process 2. */
const KTHREADD = 2;

export function systemUse(): SystemUse {
  const others = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? processOf(Number(name)) : []));
  return {
    processes: others.map(({ name }) => name).toSorted(),
    threads: others.reduce((sum, { threads }) => sum + threads, 0),
    descriptors: others.reduce((sum, { descriptors }) => sum + descriptors, 0),
    sockets: readFileSync("/proc/net/unix", "utf8").trim().split("\n").length - 1 - ownSockets(),
    sharedKib: Number(/^Shmem:\s*(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]),
    devices: [...blockDevices(), ...namesIn("/sys/class/ublk-char")],
    names: [...namesIn("/run/tsbuse"), ...namesIn("/dev").filter((name) => /^(nbd|ublk)/.test(name))],
  };
}

function ownSockets(): number {
  return openFiles().filter((name) => name.startsWith("socket:")).length;
}

function processOf(pid: number): { name: string; threads: number; descriptors: number }[] {
  const status = readOrNone(`/proc/${pid}/status`);
  const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
  // It has ended meanwhile, or it is this process or a thread of the kernel.
  if (status === "" || pid === process.pid || pid === KTHREADD || Number(field("PPid")) === KTHREADD)
    return [];
  const descriptors = namesIn(`/proc/${pid}/fd`).length;
  return [{ name: field("Name"), threads: Number(field("Threads")), descriptors }];
}

function blockDevices(): string[] {
  return namesIn("/sys/block").map((name) => `${name}: ${readOrNone(`/sys/block/${name}/size`).trim()}`);
}

function namesIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).toSorted() : [];
}

function readOrNone(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It ended after the directory was read.
    return "";
  }
}
