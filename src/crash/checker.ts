/** What says whether a disk is as it must be: a shell command, and perhaps a look of our own at what it has left. */
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";

/** A command; it exits with 0 where nothing is wrong. */
export interface Checker {
  /** For /bin/sh. */
  readonly command: string;
  /** Once the command has found nothing: what is wrong with what it left in its directory; undefined: nothing. */
  readonly inspect?: ((directory: string) => string | undefined) | undefined;
}

export interface Surroundings {
  /** The file that is the disk. */
  readonly image: string;
  /** For the checker's own files; empty. */
  readonly directory: string;
  readonly mark: string | undefined;
  /** Milliseconds. */
  readonly timeoutMs: number;
}

/** What is wrong with a state. */
export interface Finding {
  /** One line. */
  readonly reason: string;
  /** The end of what the checker has said. */
  readonly output: string;
}

/** Bytes of a checker's output that are shown. */
const OUTPUT_MAX = 2000;

/** One checker at work at a time, in a directory of its own. */
export class Check {
  readonly #output: string;
  #running: Bun.Subprocess | undefined;

  constructor(
    readonly checker: Checker,
    readonly directory: string,
  ) {
    this.#output = join(directory, "output");
  }

  /** Undefined: nothing is wrong. */
  async run({ image, mark, timeoutMs }: Omit<Surroundings, "directory">): Promise<Finding | undefined> {
    const directory = join(this.directory, "scratch");
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory);
    // A file takes all that is written, and whoever holds it open after the end of the checker holds up nobody.
    const fd = openSync(this.#output, "w+");
    try {
      const reason = await this.#spawn(fd, timeoutMs, {
        ...process.env,
        TSBUSE_IMAGE: image,
        TSBUSE_SCRATCH: directory,
        TSBUSE_MARK: mark ?? "",
      });
      const wrong = reason ?? this.checker.inspect?.(directory);
      return wrong === undefined ? undefined : { reason: wrong, output: tail(fd) };
    } finally {
      ftruncateSync(fd);
      closeSync(fd);
    }
  }

  /** Ends what is running, and all that it has started. */
  kill(): void {
    const pid = this.#running?.pid;
    if (pid === undefined || this.#running?.exitCode !== null) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }

  async #spawn(fd: number, timeoutMs: number, env: NodeJS.ProcessEnv): Promise<string | undefined> {
    const child = Bun.spawn(["/bin/sh", "-c", this.checker.command], {
      env,
      // A group of its own: it ends with all that it has started.
      detached: true,
      stdio: ["ignore", fd, fd],
    });
    this.#running = child;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.kill();
    }, timeoutMs);
    const status = await child.exited;
    clearTimeout(timer);
    this.#running = undefined;
    if (isLate) return `the checker was not done after ${timeoutMs / 1000} s`;
    if (status === 0) return undefined;
    return child.signalCode === null
      ? `the checker exits with status ${status}`
      : `the checker is ended by ${child.signalCode}`;
  }
}

/** The end of what is in the file. */
function tail(fd: number): string {
  const { size } = fstatSync(fd);
  const buffer = Buffer.alloc(OUTPUT_MAX);
  const read = readSync(fd, buffer, 0, buffer.length, Math.max(0, size - OUTPUT_MAX));
  return buffer.toString("utf8", 0, read).trim();
}
