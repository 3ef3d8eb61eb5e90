/** Writes to a terminal, pipe or socket without ever waiting for the reader. */
import { fstatSync } from "node:fs";
import { errno } from "../uapi/errno.ts";
import { O_NOCTTY, O_NONBLOCK, O_WRONLY } from "../uapi/fcntl.ts";
import { PIPE_BUF } from "../uapi/limits.ts";
import { POLLOUT } from "../uapi/poll.ts";
import { close, open, write } from "./file.ts";
import { libc } from "./library.ts";
import { PollTable } from "./poll.ts";
import { withSignalsBlocked } from "./process.ts";
import { sendBytes } from "./socket.ts";

/**
 * Reopens a pipe or terminal if permitted, because O_NONBLOCK belongs to the open file description, and the inherited
 * one is shared with the shell and other programs. A regular file has no reader, so it is used as it is.
 */
export class PromptWriter {
  readonly #fd: number;
  readonly #isOwn: boolean;
  readonly #isTerminal: boolean;
  readonly #isSocket: boolean;
  /** Polled before each write that could wait. Absent if no write can. */
  readonly #poll: PollTable | undefined;

  /** @param fd stays open, and remains the caller's. */
  constructor(fd: number) {
    const stats = kindOf(fd);
    this.#isSocket = stats?.isSocket() === true;
    this.#isTerminal = stats?.isCharacterDevice() === true && libc.isatty(fd) === 1;
    const canWait = this.#isTerminal || stats?.isFIFO() === true;
    const own = canWait ? open(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY) : -1;
    this.#isOwn = own >= 0;
    this.#fd = this.#isOwn ? own : fd;
    this.#poll = canWait && !this.#isOwn ? new PollTable(1) : undefined;
    this.#poll?.push(fd, POLLOUT);
  }

  /** Returns the number of bytes taken, perhaps not all, or -errno: -EAGAIN if the reader is behind. */
  write(bytes: Uint8Array): number {
    if (this.#isSocket) return sendBytes(this.#fd, bytes);
    // With "stty tostop" a write from the background raises SIGTTOU, which stops the program; one that handles the
    // signal would retry for ever. The kernel ignores the setting while the signal is blocked.
    if (this.#isTerminal) return withSignalsBlocked(() => this.#write(bytes));
    return this.#write(bytes);
  }

  close(): void {
    if (this.#isOwn) close(this.#fd);
  }

  #write(bytes: Uint8Array): number {
    if (this.#poll === undefined) return write(this.#fd, bytes);
    // A writable pipe has room for PIPE_BUF bytes.
    if (this.#poll.wait(0) <= 0) return -errno.EAGAIN;
    return write(this.#fd, bytes.subarray(0, PIPE_BUF));
  }
}

/** Undefined if the descriptor is closed. */
function kindOf(fd: number): ReturnType<typeof fstatSync> | undefined {
  try {
    return fstatSync(fd);
  } catch {
    return undefined;
  }
}
