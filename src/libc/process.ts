/** The process and its threads. Each function returns what its call returns, or -errno (see errno.ts). */
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { errno } from "../uapi/errno.ts";
import { F_SETFD } from "../uapi/fcntl.ts";
import { PR_GET_IO_FLUSHER, PR_SET_CHILD_SUBREAPER, PR_SET_IO_FLUSHER } from "../uapi/prctl.ts";
import { SCHED_OTHER, SCHED_RR } from "../uapi/sched.ts";
import { SYS_sched_setscheduler } from "../uapi/unistd.ts";
import { WNOHANG } from "../uapi/wait.ts";
import { SIG_BLOCK, SIG_SETMASK, SIGSET_BYTES } from "../uapi/signal.ts";
import { cString } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";
import { Memory } from "./memory.ts";

/**
 * Marks the calling thread, and the threads and processes that it starts, as ones that block I/O depends on. When they
 * need memory, the kernel does not write to block devices to free some: that could be the device that they serve
 * (prctl(2), PR_SET_IO_FLUSHER, Linux 5.6).
 */
export function setIoFlusher(on: boolean): number {
  return negativeErrno(libc.prctl(PR_SET_IO_FLUSHER, on ? 1 : 0, 0, 0, 0));
}

/** 1 if the calling thread has this mark, else 0; -EPERM without CAP_SYS_RESOURCE, -EINVAL before Linux 5.6. */
export function isIoFlusher(): number {
  return negativeErrno(libc.prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
}

/** Makes orphaned descendants children of this process (prctl(2), PR_SET_CHILD_SUBREAPER). */
export function setSubreaper(): number {
  return negativeErrno(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}

/** waitpid(2) without waiting: the ID of a child that has ended and is now reaped; 0 if it has not ended. */
export function reap(pid: number): number {
  return negativeErrno(libc.waitpid(pid, 0, WNOHANG));
}

/**
 * execv(3) of the same command line: the process keeps its ID, environment and inherited files, and its program starts
 * again. Returns only on failure, -errno: -ENOENT without /proc, or if the program's file is gone.
 */
export function startAnew(): number {
  // The exact bytes: process.argv has decoded words, and a program name of the runtime's choice.
  if (!existsSync("/proc/self/cmdline")) return -errno.ENOENT;
  const words = readFileSync("/proc/self/cmdline");
  inheritDescriptors();
  const area = new Memory(words.length + 1);
  area.write(words, 0);
  const argv: bigint[] = [];
  for (let at = 0; at < words.length; at += 1) {
    argv.push(BigInt(area.address + at));
    while (words[at] !== 0 && at < words.length) at += 1;
  }
  const result = negativeErrno(libc.execv(cString(process.execPath), BigUint64Array.from([...argv, 0n])));
  area.close();
  return result;
}

/** The runtime marked inherited descriptors as close-on-exec, like its own, which are anonymous inodes. */
function inheritDescriptors(): void {
  for (const name of readdirSync("/proc/self/fd")) {
    const target = targetOf(`/proc/self/fd/${name}`);
    if (Number(name) > 2 && target?.startsWith("anon_inode:") === false) libc.fcntl(Number(name), F_SETFD, 0);
  }
}

/** Undefined for the descriptor of the directory itself, which is closed by now. */
function targetOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/**
 * Runs `use` with every signal blocked in the calling thread: sigprocmask(2) changes that thread alone on Linux. The
 * mask is restored afterwards, since the runtime signals its own threads when they are to end.
 */
export function withSignalsBlocked<T>(use: () => T): T {
  const all = new Uint8Array(new ArrayBuffer(SIGSET_BYTES));
  const before = new Uint8Array(new ArrayBuffer(SIGSET_BYTES));
  libc.sigfillset(all);
  unwrap(negativeErrno(libc.sigprocmask(SIG_BLOCK, all, before)), "sigprocmask");
  try {
    return use();
  } finally {
    unwrap(negativeErrno(libc.sigprocmask(SIG_SETMASK, before, null)), "sigprocmask");
  }
}

let isUrgent = false;

/**
 * Gives the calling thread, and those that it starts, the lowest real-time priority (sched(7)), or ordinary priority.
 * When memory is short, real-time threads may use part of the kernel's reserve. Returns 0 or -errno: -EPERM without
 * CAP_SYS_NICE. Makes the system call itself, because not every C library has a function for it.
 */
export function setUrgent(on: boolean): number {
  const priority = new Int32Array(new ArrayBuffer(4)).fill(on ? 1 : 0);
  const policy = on ? SCHED_RR : SCHED_OTHER;
  const result = negativeErrno(libc.sched_setscheduler(SYS_sched_setscheduler, 0, policy, priority));
  if (result === 0) isUrgent = on;
  return result;
}

const OOM_SCORE = "/proc/self/oom_score_adj";
/** The value with which the process was started. */
let firstOomScore: string | undefined;

/**
 * Tells the kernel never to kill this process when memory runs out (proc_pid_oom_score_adj(5)). Returns false without
 * permission: it requires CAP_SYS_RESOURCE.
 */
export function avoidOutOfMemoryKiller(): boolean {
  try {
    firstOomScore ??= readFileSync(OOM_SCORE, "utf8");
    writeFileSync(OOM_SCORE, "-1000");
    return true;
  } catch {
    return false;
  }
}

/**
 * Starts a process that serves no device. Meanwhile removes the marks that protect the server of a device, because the
 * child would inherit them.
 */
export function withoutMarks<T>(start: () => T): T {
  const isSpared = firstOomScore !== undefined;
  const wasUrgent = isUrgent;
  setIoFlusher(false);
  if (wasUrgent) setUrgent(false);
  if (isSpared) writeFileSync(OOM_SCORE, firstOomScore ?? "0");
  try {
    return start();
  } finally {
    setIoFlusher(true);
    if (wasUrgent) setUrgent(true);
    if (isSpared) avoidOutOfMemoryKiller();
  }
}

/** setsid(2): a session of its own, with no terminal. */
export function setsid(): number {
  return negativeErrno(libc.setsid());
}
