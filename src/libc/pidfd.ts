/** Another process as a file descriptor: pidfd_open(2). It refers to the same process even if the ID is reused. */
import { errno } from "../uapi/errno.ts";
import { POLLIN } from "../uapi/poll.ts";
import { SIGKILL } from "../uapi/signal.ts";
import { SYS_pidfd_getfd, SYS_pidfd_open, SYS_pidfd_send_signal } from "../uapi/unistd.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { close } from "./file.ts";
import { libc } from "./library.ts";
import { PollTable } from "./poll.ts";

export class OtherProcess implements Disposable {
  readonly #fd: number;

  /** @throws ErrnoError ESRCH if the process is gone, ENOSYS before Linux 5.3. */
  constructor(readonly pid: number) {
    this.#fd = unwrap(negativeErrno(libc.pidfd_open(SYS_pidfd_open, pid, 0)), `process ${pid}`);
  }

  /** Whether it has ended, even if it is not reaped yet. */
  get hasEnded(): boolean {
    const table = new PollTable(1);
    table.push(this.#fd, POLLIN);
    return table.wait(0) > 0;
  }

  /**
   * pidfd_getfd(2): a copy of the process's descriptor `fd`, for the caller to close.
   * @throws ErrnoError EPERM if this process may not trace that one, ENOSYS before Linux 5.6.
   */
  descriptor(fd: number): number {
    const result = negativeErrno(libc.pidfd_getfd(SYS_pidfd_getfd, this.#fd, fd, 0));
    return unwrap(result, `descriptor ${fd} of process ${this.pid}`);
  }

  /** Sends SIGKILL. Does nothing to a process that has ended. @throws ErrnoError EPERM */
  kill(): void {
    const result = negativeErrno(libc.pidfd_send_signal(SYS_pidfd_send_signal, this.#fd, SIGKILL, null, 0));
    if (result !== -errno.ESRCH) unwrap(result, `process ${this.pid}`);
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}
