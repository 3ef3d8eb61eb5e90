/** Programs of a step: each has a log, and a limit on the wait for its end. */
import { closeSync, openSync, readFileSync } from "node:fs";

/**
 * The limit for everything that must end, in milliseconds. The processor is emulated and may be busy; what takes longer
 * than this hangs.
 */
export const LIMIT_MS = 60_000;

/** What a torture looks for: it prints the message and ends. */
export class Fault extends Error {
  override readonly name = "Fault";
}

/** Polls until `condition` holds. @throws Fault naming `what` */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = LIMIT_MS,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Fault(`not within ${limitMs / 1000} s: ${what}`);
    await Bun.sleep(20);
  }
}

/** The limit even with progress. */
const WORK_LIMIT_MS = 10 * LIMIT_MS;

/** Waits likewise, but longer, for work that a slow machine delays, as long as `progress` changes. @throws Fault */
export async function untilDone(what: string, isDone: () => boolean, progress: () => number): Promise<void> {
  const deadline = performance.now() + WORK_LIMIT_MS;
  let last = progress();
  let sinceMs = performance.now();
  while (!isDone()) {
    const now = performance.now();
    const current = progress();
    if (current !== last) sinceMs = now;
    last = current;
    if (now - sinceMs > LIMIT_MS) throw new Fault(`no progress for ${LIMIT_MS / 1000} s: ${what}`);
    if (now > deadline) throw new Fault(`not within ${WORK_LIMIT_MS / 1000} s: ${what}`);
    await Bun.sleep(5);
  }
}

export class Program {
  readonly name: string;
  readonly #child: Bun.Subprocess<"ignore", "pipe" | number, number>;

  /** @param log file to which its stderr is appended, and its stdout unless `piped`. */
  constructor(
    readonly command: readonly string[],
    readonly log: string,
    piped = false,
  ) {
    this.name = command.join(" ");
    const fd = openSync(log, "a");
    try {
      this.#child = Bun.spawn([...command], { stdio: ["ignore", piped ? "pipe" : fd, fd] });
    } finally {
      closeSync(fd);
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  get stdout(): ReadableStream<Uint8Array> {
    const { stdout } = this.#child;
    if (!(stdout instanceof ReadableStream)) throw new TypeError(`${this.name} was not started with a pipe`);
    return stdout;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get output(): string {
    return readFileSync(this.log, "utf8");
  }

  /** The line of its output that names the cause, if it can be recognized; otherwise the last line. */
  get complaint(): string {
    const lines = this.output.trim().split("\n");
    return lines.findLast((line) => /error|fault|verify|: block \d/i.test(line)) ?? lines.at(-1) ?? "";
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** @returns the exit status, or 128 plus the number of the signal that ended it. @throws Fault */
  async ended(limitMs = LIMIT_MS): Promise<number> {
    await until(`the end of ${this.name}`, () => !this.isRunning, limitMs);
    return this.#child.exited;
  }

  /** @throws Fault if it ends with another status. */
  async endsWith(statuses: readonly number[]): Promise<void> {
    const status = await this.ended();
    if (!statuses.includes(status))
      throw new Fault(`exit status ${status} instead of ${statuses.join(" or ")}: ${this.name}`);
  }
}

/** Runs a program to its end. @throws Fault if it fails or hangs. */
export async function runs(log: string, ...command: string[]): Promise<void> {
  await new Program(command, log).endsWith([0]);
}
