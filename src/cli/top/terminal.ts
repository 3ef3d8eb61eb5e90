/** The terminal of a live screen: taken, drawn on, and always restored. */
import { PromptWriter } from "../../libc/prompt-writer.ts";
import { errno } from "../../uapi/errno.ts";

const STDOUT = 1;
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const CTRL_C = "\x03";
const CTRL_Z = "\x1a";
/** Signals that end it. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
/** How often to try a terminal that takes nothing, and when to give up at the end, in milliseconds. */
const AGAIN_MS = 10;
const LEAVE_LIMIT_MS = 1000;

const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;

export class Terminal {
  /** Settles with the exit status when the user or a signal ends it. */
  readonly ended: Promise<number>;
  /** Called when the size changes. */
  onResize: (() => void) | undefined;
  readonly #end: (status: number) => void;
  readonly #writer = new PromptWriter(STDOUT);
  #isTaken = false;
  /** The number of the newest frame: an incomplete earlier one is dropped. */
  #frame = 0;
  readonly #restore = (): void => this.#giveBack();
  readonly #resized = (): void => this.onResize?.();
  readonly #continued = (): void => this.#take();
  readonly #typed = (bytes: Buffer): void => this.#key(bytes.toString());
  readonly #handlers = SIGNALS.map((signal) => [signal, () => this.#end(128 + NUMBERS[signal])] as const);

  constructor() {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    this.#end = resolve;
    for (const [signal, handler] of this.#handlers) process.on(signal, handler);
    process.on("exit", this.#restore);
    process.on("SIGWINCH", this.#resized);
    process.on("SIGCONT", this.#continued);
    if (process.stdin.isTTY) process.stdin.on("data", this.#typed);
    this.#take();
  }

  /** Returns 0, or -errno when the terminal is gone. */
  draw(lines: readonly string[]): Promise<number> {
    this.#frame += 1;
    const frame = this.#frame;
    const text = `${HOME}${lines.map((line) => `${line}${CLEAR_LINE}`).join("\r\n")}${CLEAR_BELOW}`;
    return writeAll(this.#writer, text, () => this.#isTaken && frame === this.#frame);
  }

  /** Settles when the terminal is restored, or takes nothing for too long. Another signal then ends the process. */
  async close(): Promise<void> {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
    process.off("SIGWINCH", this.#resized);
    process.off("SIGCONT", this.#continued);
    if (process.stdin.isTTY) process.stdin.off("data", this.#typed).pause();
    await this.#leave();
    process.off("exit", this.#restore);
    this.#writer.close();
  }

  #key(keys: string): void {
    if (keys.includes(CTRL_Z)) {
      void this.#leave().then(() => process.kill(process.pid, "SIGSTOP"));
    } else if (/[qQ]/.test(keys)) {
      this.#end(0);
    } else if (keys.includes(CTRL_C)) {
      this.#end(128 + NUMBERS.SIGINT);
    }
  }

  #take(): void {
    if (this.#isTaken) return;
    this.#isTaken = true;
    if (process.stdin.isTTY) process.stdin.setRawMode(true);
    this.#writer.write(Buffer.from(ENTER));
    this.onResize?.();
  }

  async #leave(): Promise<void> {
    if (!this.#giveUp()) return;
    const until = performance.now() + LEAVE_LIMIT_MS;
    await writeAll(this.#writer, LEAVE, () => performance.now() < until);
  }

  /** For a process that ends at once. */
  #giveBack(): void {
    if (this.#giveUp()) this.#writer.write(Buffer.from(LEAVE));
  }

  /** Returns false if the terminal was not taken. */
  #giveUp(): boolean {
    if (!this.#isTaken) return false;
    this.#isTaken = false;
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    return true;
  }
}

/**
 * Writes to a reader that may be slow or stopped; signals are handled meanwhile.
 * @param isWanted is called whenever the reader is behind: false ends the writing.
 * @returns 0, or -errno when it cannot be written.
 */
export async function writeAll(
  writer: PromptWriter,
  text: string,
  isWanted: () => boolean = () => true,
): Promise<number> {
  let bytes: Uint8Array = Buffer.from(text);
  while (bytes.length > 0) {
    const written = writer.write(bytes);
    if (written >= 0) bytes = bytes.subarray(written);
    else if (written !== -errno.EAGAIN && written !== -errno.EINTR) return written;
    else {
      await Bun.sleep(AGAIN_MS);
      if (!isWanted()) return 0;
    }
  }
  return 0;
}
