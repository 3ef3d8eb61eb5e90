/** Programs of a step: with a log, and an end that is not waited for without end. */
import { closeSync, openSync, readFileSync } from "node:fs";

/**
 * How long anything may take that must come to an end, in milliseconds. The processor is an emulated one, and may be
 * busy; what takes longer than this hangs.
 */
export const LIMIT_MS = 60_000;

/** What a torture looks for: its message is printed, and ends it. */
export class Fault extends Error {
  override readonly name = "Fault";
}

/** Waits until `condition` holds, looking often. @throws Fault naming `what` */
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

/** However long it goes on. */
const WORK_LIMIT_MS = 10 * LIMIT_MS;

/** Waits likewise for what takes as long as the machine is slow, as long as `progress` changes. @throws Fault */
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

  /** @param log what it writes to stderr, and to stdout unless `piped`, is added to this file. */
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

  /** The line of its output that says what was wrong, as far as that can be told; otherwise the last. */
  get complaint(): string {
    const lines = this.output.trim().split("\n");
    return lines.findLast((line) => /error|fault|verify|: block \d/i.test(line)) ?? lines.at(-1) ?? "";
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** @returns the exit status, 128 and the signal's number if one ended it. @throws Fault */
  async ended(limitMs = LIMIT_MS): Promise<number> {
    await until(`the end of ${this.name}`, () => !this.isRunning, limitMs);
    return this.#child.exited;
  }

  /** @throws Fault when it ends otherwise. */
  async endsWith(statuses: readonly number[]): Promise<void> {
    const status = await this.ended();
    if (!statuses.includes(status))
      throw new Fault(`exit status ${status} in place of ${statuses.join(" or ")}: ${this.name}`);
  }
}

/** Runs a program to its end. @throws Fault when it fails or hangs. */
export async function runs(log: string, ...command: string[]): Promise<void> {
  await new Program(command, log).endsWith([0]);
}
