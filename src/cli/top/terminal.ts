/** The terminal of a live screen: taken, drawn on, and given back as it was however that ends. */
import { writeSync } from "node:fs";

const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const CTRL_C = "\x03";
const CTRL_Z = "\x1a";
/** What ends it. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
/** A terminal that takes nothing is looked at again after so long, in milliseconds. */
const AGAIN_MS = 10;

const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;

export class Terminal {
  /** Settles when the user wants it to end, or a signal does: with the exit status. */
  readonly ended: Promise<number>;
  /** Called when the size has changed. */
  onResize: (() => void) | undefined;
  readonly #end: (status: number) => void;
  #isTaken = false;
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

  /** Returns false when nobody is there to look at it. */
  draw(lines: readonly string[]): Promise<boolean> {
    return writeAll(`${HOME}${lines.map((line) => `${line}${CLEAR_LINE}`).join("\r\n")}${CLEAR_BELOW}`);
  }

  close(): void {
    this.#giveBack();
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
    process.off("exit", this.#restore);
    process.off("SIGWINCH", this.#resized);
    process.off("SIGCONT", this.#continued);
    if (process.stdin.isTTY) process.stdin.off("data", this.#typed).pause();
  }

  #key(keys: string): void {
    if (keys.includes(CTRL_Z)) {
      this.#giveBack();
      process.kill(process.pid, "SIGSTOP");
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
    tryWrite(ENTER);
    this.onResize?.();
  }

  #giveBack(): void {
    if (!this.#isTaken) return;
    this.#isTaken = false;
    tryWrite(LEAVE);
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
  }
}

/** Returns true when all was written, false when there is no reader any more. */
export async function writeAll(text: string): Promise<boolean> {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;) {
    const wrote = tryWrite(bytes.subarray(done));
    if (wrote < 0) return false;
    if (wrote === 0) await Bun.sleep(AGAIN_MS);
    done += wrote;
  }
  return true;
}

/** Bytes written, 0 when the terminal takes none for now, -1 when it is gone. */
function tryWrite(what: string | Uint8Array): number {
  try {
    return writeSync(1, Buffer.from(what));
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EAGAIN" ? 0 : -1;
  }
}
