/** Writes to a terminal, a pipe or a socket without ever waiting for the reader. */
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
 * A pipe or terminal is opened anew where that is allowed: O_NONBLOCK belongs to what was opened, and the one that was
 * inherited is also that of the shell and of other programs. A regular file has no reader, and is written to as it is.
 */
export class PromptWriter {
  readonly #fd: number;
  readonly #isOwn: boolean;
  readonly #isTerminal: boolean;
  readonly #isSocket: boolean;
  /** Asked before each write that could wait. Absent where none can. */
  readonly #poll: PollTable | undefined;

  /** @param fd stays open, and the caller's. */
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

  /** Returns how many of the bytes were taken, perhaps not all, or -errno: -EAGAIN where the reader is behind. */
  write(bytes: Uint8Array): number {
    if (this.#isSocket) return sendBytes(this.#fd, bytes);
    // A program in the background is stopped when it writes to a terminal that is set so; one that handles the signal
    // would try for ever. Of a blocked one the kernel takes no notice.
    if (this.#isTerminal) return withSignalsBlocked(() => this.#write(bytes));
    return this.#write(bytes);
  }

  close(): void {
    if (this.#isOwn) close(this.#fd);
  }

  #write(bytes: Uint8Array): number {
    if (this.#poll === undefined) return write(this.#fd, bytes);
    // A pipe that can be written to has room for so much.
    if (this.#poll.wait(0) <= 0) return -errno.EAGAIN;
    return write(this.#fd, bytes.subarray(0, PIPE_BUF));
  }
}

/** Undefined where the descriptor is closed. */
function kindOf(fd: number): ReturnType<typeof fstatSync> | undefined {
  try {
    return fstatSync(fd);
  } catch {
    return undefined;
  }
}
