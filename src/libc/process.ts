/** The process and its threads. Each function returns what its call returns, or -errno (see errno.ts). */
import { PR_SET_IO_FLUSHER } from "../uapi/prctl.ts";
import { SIG_BLOCK, SIGSET_BYTES } from "../uapi/signal.ts";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

/**
 * Marks the calling thread, and the threads and processes it starts, as one that block I/O depends on: memory it allocates is never won
 * by writing to a block device, which could be the very one it serves (prctl(2), PR_SET_IO_FLUSHER, Linux 5.6).
 */
export function setIoFlusher(on: boolean): number {
  return negativeErrno(libc.prctl(PR_SET_IO_FLUSHER, on ? 1 : 0, 0, 0, 0));
}

/** Blocks every signal in the calling thread: sigprocmask(2) changes that thread alone on Linux. */
export function blockAllSignals(): number {
  const set = new Uint8Array(new ArrayBuffer(SIGSET_BYTES));
  libc.sigfillset(set);
  return negativeErrno(libc.sigprocmask(SIG_BLOCK, set, null));
}

/** setsid(2): a session of its own, with no terminal. */
export function setsid(): number {
  return negativeErrno(libc.setsid());
}
