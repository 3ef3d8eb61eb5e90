/** The process and its threads. Each function returns what its call returns, or -errno (see errno.ts). */
import { writeFileSync } from "node:fs";
import { PR_SET_IO_FLUSHER } from "../uapi/prctl.ts";
import { SIG_BLOCK, SIG_SETMASK, SIGSET_BYTES } from "../uapi/signal.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";

/**
 * Marks the calling thread, and the threads and processes it starts, as one that block I/O depends on: memory it
 * allocates is never won by writing to a block device, which could be the very one it serves (prctl(2),
 * PR_SET_IO_FLUSHER, Linux 5.6).
 */
export function setIoFlusher(on: boolean): number {
  return negativeErrno(libc.prctl(PR_SET_IO_FLUSHER, on ? 1 : 0, 0, 0, 0));
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

/**
 * Tells the kernel to end other processes first when memory runs out, and this one never (proc_pid_oom_score_adj(5)).
 * Returns false where it may not be told: it takes CAP_SYS_RESOURCE.
 */
export function avoidOutOfMemoryKiller(): boolean {
  try {
    writeFileSync("/proc/self/oom_score_adj", "-1000");
    return true;
  } catch {
    return false;
  }
}

/** setsid(2): a session of its own, with no terminal. */
export function setsid(): number {
  return negativeErrno(libc.setsid());
}
