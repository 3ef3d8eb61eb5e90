/** Where a system shows that a driver or a server went wrong: proc(5), sysfs, the kernel's log. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { Fault } from "./process.ts";

/** The resources that grow when a process leaks. */
export interface Use {
  readonly descriptors: number;
  readonly threads: number;
  /** Resident anonymous memory, in bytes. */
  readonly memory: number;
}

/** A thread in uninterruptible sleep that makes no progress for longer than this hangs. */
const STUCK_MS = 60_000;
/** The kernel's own threads and memory come and go: only a leak grows on and on. */
const SYSTEM_GROWTH: Use = { descriptors: 256, threads: 64, memory: 256 * 2 ** 20 };
const LOOK_MS = 5000;
const ALARMING = new RegExp(
  [
    String.raw`BUG:|\bOops\b|general protection|kernel NULL pointer|refcount_t|WARNING: CPU`,
    "blocked for more than|rcu_.*stall|soft lockup",
  ].join("|"),
);

/** The IDs of the processes that run `binary`. */
export function processesOf(binary: string): number[] {
  return numbersIn("/proc").filter((pid) => linkOf(`/proc/${pid}/exe`) === binary);
}

/** The IDs of the other processes with a word on their command line. */
export function processesWith(word: string): number[] {
  return numbersIn("/proc").filter(
    (pid) => pid !== process.pid && textOf(`/proc/${pid}/cmdline`).includes(word),
  );
}

/** Does not count the threads that the kernel keeps for an io_uring: they come and go. */
export function useOf(pid: number): Use {
  const threads = numbersIn(`/proc/${pid}/task`).filter(
    (tid) => !textOf(`/proc/${pid}/task/${tid}/comm`).startsWith("iou-"),
  );
  const memory = /^RssAnon:\s*(\d+) kB$/m.exec(textOf(`/proc/${pid}/status`))?.[1] ?? "0";
  return {
    descriptors: numbersIn(`/proc/${pid}/fd`).length,
    threads: threads.length,
    memory: Number(memory) * 1024,
  };
}

/** The attached devices of both drivers: `nbd0`, `ublkc1`. */
export function devices(): string[] {
  const nbd = namesIn("/sys/block").filter(
    (name) => name.startsWith("nbd") && existsSync(`/sys/block/${name}/pid`),
  );
  return [...nbd, ...namesIn("/sys/class/ublk-char")];
}

/** Mounts below a directory. */
export function mountsBelow(directory: string): string[] {
  const points = textOf("/proc/mounts")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "");
  return points.filter((point) => point.startsWith(`${directory}/`));
}

/** Requests that a node has completed. */
export function completedBy(node: string): number {
  const fields = textOf(`/sys/block/${node.slice("/dev/".length)}/stat`)
    .trim()
    .split(/\s+/)
    .map(Number);
  return (fields[0] ?? 0) + (fields[4] ?? 0);
}

/** Processor time of a process, in clock ticks: it shows progress. */
export function ticksOf(pid: number): number {
  const fields = textOf(`/proc/${pid}/stat`)
    .replace(/^.*\) /s, "")
    .split(" ");
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
}

/** Watches for threads that hang in the kernel, and the kernel's log. */
export class Watch implements Disposable {
  /** Threads in state D: since when, and how often each had slept by then. */
  readonly #waiting = new Map<string, { readonly sinceMs: number; readonly sleeps: string }>();
  readonly #timer = setInterval(() => this.#look(), LOOK_MS);
  #stuck: string | undefined;
  /** What the system used after the first step. */
  #before: Use | undefined;

  constructor() {
    takeKernelLog();
  }

  /** Call it while no step runs. @throws Fault for what it has seen since the last call. */
  check(): void {
    const stuck = this.#stuck;
    this.#stuck = undefined;
    if (stuck !== undefined) throw new Fault(stuck);
    const alarming = takeKernelLog().find((line) => ALARMING.test(line));
    if (alarming !== undefined) throw new Fault(`the kernel's log: ${alarming}`);
    const now = systemUse();
    this.#before ??= now;
    const growth = growthOf(this.#before, now, SYSTEM_GROWTH);
    if (growth !== undefined) throw new Fault(`more is in use than after the first step: ${growth}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    const found = new Set<string>();
    for (const pid of numbersIn("/proc")) {
      for (const tid of numbersIn(`/proc/${pid}/task`)) {
        const status = textOf(`/proc/${pid}/task/${tid}/status`);
        if (!/^State:\tD/m.test(status)) continue;
        const sleeps = /^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)?.[1] ?? "";
        const name = `${/^Name:\t(.*)$/m.exec(status)?.[1]} (thread ${tid} of process ${pid})`;
        found.add(name);
        const before = this.#waiting.get(name);
        if (before?.sleeps !== sleeps) this.#waiting.set(name, { sinceMs: now, sleeps });
        else if (now - before.sinceMs > STUCK_MS) {
          const stack = textOf(`/proc/${pid}/task/${tid}/stack`).trim().split("\n").slice(0, 8).join(" < ");
          this.#stuck ??= `${name} has hung in the kernel for ${STUCK_MS / 1000} s: ${stack}`;
        }
      }
    }
    for (const name of this.#waiting.keys()) if (!found.has(name)) this.#waiting.delete(name);
  }
}

/** The kernel's messages since the last call. */
function takeKernelLog(): string[] {
  const { stdout } = Bun.spawnSync(["dmesg", "--read-clear"]);
  return stdout.toString().split("\n");
}

/** What the whole system uses, with the kernel, but without this process and memory that can be reclaimed. */
function systemUse(): Use {
  const memory = textOf("/proc/meminfo");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(memory)?.[1]);
  return {
    descriptors: Number(textOf("/proc/sys/fs/file-nr").split("\t")[0]),
    threads: Number(/\/(\d+)/.exec(textOf("/proc/loadavg"))?.[1]),
    memory: (kib("MemTotal") - kib("MemAvailable")) * 1024 - useOf(process.pid).memory,
  };
}

/** Which resource grew by more than `allowed`, in words. */
export function growthOf(before: Use, now: Use, allowed: Use): string | undefined {
  const name = (["descriptors", "threads", "memory"] as const).find(
    (each) => now[each] > before[each] + allowed[each],
  );
  return name === undefined ? undefined : `${name}: ${now[name]} after ${before[name]}`;
}

function numbersIn(directory: string): number[] {
  return namesIn(directory)
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Empty if the process has ended or the device has gone meanwhile. */
function namesIn(directory: string): string[] {
  return whatIsThere(() => readdirSync(directory)) ?? [];
}

function textOf(path: string): string {
  return whatIsThere(() => readFileSync(path, "utf8")) ?? "";
}

function linkOf(path: string): string {
  return whatIsThere(() => readlinkSync(path)) ?? "";
}

function whatIsThere<Value>(look: () => Value): Value | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
