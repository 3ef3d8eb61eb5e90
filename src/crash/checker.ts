/** Decides whether a disk is intact: by a shell command, and perhaps by our own inspection of what that left. */
import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { messageOf, UserError } from "../errors.ts";
import { emptyDirectory, hasRoom, noRoom } from "./directory.ts";
import { adoptStrays, awaitItself, endStrays } from "./strays.ts";

/** A command that exits with 0 if nothing is wrong. */
export interface Checker {
  /** For /bin/sh. */
  readonly command: string;
  /** Called if the command succeeds: what is wrong with the files in its directory; undefined if nothing. */
  readonly inspect?: ((directory: string) => string | undefined) | undefined;
}

interface Surroundings {
  /** The file that is the disk. */
  readonly image: string;
  /** A node with the same contents. */
  readonly device: string | undefined;
  readonly mark: string | undefined;
  /** Milliseconds. */
  readonly timeoutMs: number;
}

/** What is wrong with a state. */
export interface Finding {
  /** One line. */
  readonly reason: string;
  /** The end of the checker's output. */
  readonly output: string;
}

/** The maximum of a checker's output that is shown, in bytes. */
const OUTPUT_MAX = 2000;

/** A command for a shell: replaces it by a shell in new mount and PID namespaces. */
const APART = 'exec unshare --mount --pid --fork --kill-child "$0" "$@"';
/** By us, before it had a result. */
const ENDED = "the checker was ended";
/** The exit status of a shell if SIGKILL ended its command. A checker does not send SIGKILL to itself. */
const STATUS_KILLED = 128 + 9;
/** Milliseconds after the time limit. */
const GRACE_MS = 100;
/** Milliseconds after SIGKILL, because the checker may be waiting for a disk. */
const END_MS = 10_000;

/** Runs a checker in a directory of its own, once at a time. */
export class Check {
  readonly #output: string;
  readonly #scratch: string;
  #running: Bun.Subprocess | undefined;
  #isEnded = false;

  constructor(
    readonly checker: Checker,
    readonly directory: string,
  ) {
    this.#output = join(directory, "output");
    this.#scratch = join(directory, "scratch");
    adoptStrays();
  }

  /** Undefined if nothing is wrong. @throws UserError if the checker could not do its work. */
  async run(surroundings: Surroundings): Promise<Finding | undefined> {
    emptyDirectory(this.#scratch);
    const fd = this.#openOutput();
    try {
      const reason = await this.#spawn(fd, surroundings);
      const wrong = reason ?? this.checker.inspect?.(this.#scratch);
      if (wrong === undefined) return undefined;
      if (!hasRoom(this.directory))
        throw noRoom(this.directory, `the checker has left none, and failed: ${wrong}`);
      return { reason: wrong, output: tail(fd) };
    } finally {
      ftruncateSync(fd);
      closeSync(fd);
    }
  }

  /** Ends the checker and all processes that it started. */
  kill(): void {
    this.#isEnded = true;
    const { pid, exitCode } = this.#running ?? {};
    if (pid !== undefined && exitCode === null) killGroup(pid);
  }

  /** A file, not a pipe: it takes all output, and a process that keeps it open after the checker delays nothing. */
  #openOutput(): number {
    try {
      return openSync(this.#output, "w+");
    } catch (error) {
      throw noRoom(this.#output, messageOf(error), error);
    }
  }

  async #spawn(fd: number, { image, device, mark, timeoutMs }: Surroundings): Promise<string | undefined> {
    if (this.#isEnded) return ENDED;
    const child = this.#start(fd, {
      ...process.env,
      TSBUSE_IMAGE: image,
      TSBUSE_DEVICE: device,
      TSBUSE_SCRATCH: this.#scratch,
      TSBUSE_MARK: mark ?? "",
    });
    awaitItself(child);
    this.#running = child;
    const isLate = await endOf(child, timeoutMs);
    this.#running = undefined;
    // Ends what remains of the group. The kernel does not reuse the number while the group has processes.
    if (!existsSync(`/proc/${child.pid}`)) killGroup(child.pid);
    if (!(await endStrays(this.#scratch))) throw stuck();
    if (isLate) return `the checker was not done after ${timeoutMs / 1000} s`;
    if (this.#isEnded) return ENDED;
    const { exitCode, signalCode } = child;
    if (exitCode === 0) return undefined;
    if (signalCode === "SIGKILL" || exitCode === STATUS_KILLED)
      throw new UserError(
        "the checker was killed, which says nothing of the disk: if the system was out of memory, give fewer --jobs",
      );
    return signalCode === null
      ? `the checker exits with status ${exitCode}`
      : `the checker is ended by ${signalCode}`;
  }

  /** @throws UserError if the system cannot start another process. */
  #start(fd: number, env: NodeJS.ProcessEnv): Bun.Subprocess {
    // Where unshare is permitted, what the checker mounts and starts ends with it.
    const apart = env["TSBUSE_DEVICE"] === undefined ? [] : ["-c", APART, "/bin/sh"];
    try {
      return Bun.spawn(["/bin/sh", ...apart, "-c", this.checker.command], {
        env,
        // A group of its own, so that everything it starts can be ended with it.
        detached: true,
        stdio: ["ignore", fd, fd],
      });
    } catch (error) {
      throw new UserError(`the checker cannot be started: ${messageOf(error)}`, { cause: error });
    }
  }
}

/** Whether the checker took too long and was ended. @throws UserError if it does not end. */
async function endOf({ pid, exited }: Bun.Subprocess, timeoutMs: number): Promise<boolean> {
  const never = Promise.withResolvers<never>();
  let isLate = false;
  const end = (): void => {
    isLate = true;
    killGroup(pid);
    timer = setTimeout(() => never.reject(stuck()), END_MS);
  };
  // After this process was stopped for a while, the checker may have ended without our noticing yet.
  let timer = setTimeout(() => (timer = setTimeout(end, GRACE_MS)), timeoutMs);
  await Promise.race([exited, never.promise]).finally(() => clearTimeout(timer));
  return isLate;
}

function stuck(): UserError {
  return new UserError(
    "the checker cannot be ended: it waits in the kernel, perhaps for a disk that does not answer",
  );
}

/** Kills a process and those that it has started. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** The end of the file's contents. */
function tail(fd: number): string {
  const { size } = fstatSync(fd);
  const buffer = Buffer.alloc(OUTPUT_MAX);
  const read = readSync(fd, buffer, 0, buffer.length, Math.max(0, size - OUTPUT_MAX));
  return buffer.toString("utf8", 0, read).trim();
}
