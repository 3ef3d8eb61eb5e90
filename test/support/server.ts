/** Runs the compiled binary for the tests of the real driver: starts it, waits for it, and always ends it. */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { run, until } from "./shell.ts";

export const BINARY = join(import.meta.dir, "../../dist/tsbuse");

/** Servers that have not ended: {@link endServers} ends them. */
const running = new Set<Server>();

/** The commands that start a device. */
const DEVICES: ReadonlySet<string | undefined> = new Set(["ramdisk", "loop", "deadbeef", "run"]);
let added: readonly string[] = [];

/** Adds these words to every device command from now on, to select a transport. */
export function startWith(words: readonly string[]): void {
  added = words;
}

/** The command line of the binary. */
function commandLine([command = "", ...rest]: readonly string[]): string[] {
  return [command, ...(DEVICES.has(command) ? added : []), ...rest];
}

/** A longer start counts as hung. Eight at once, in a machine with a small part of a processor, took over 30 s. */
const READY_LIMIT_MS = 120_000;

export class Server implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #errors: Promise<string>;
  /** The device's path, from its first line of output. */
  readonly path: string;

  private constructor(
    process: Bun.Subprocess<"ignore", "pipe", "pipe">,
    path: string,
    errors: Promise<string>,
  ) {
    this.#process = process;
    this.#errors = errors;
    this.path = path;
  }

  /** Starts `tsbuse` and waits until it has printed the path. @throws Error with its message if it ends instead. */
  static start(...words: string[]): Promise<Server> {
    return Server.startBy([BINARY], words);
  }

  /** As {@link start}, of another program than the binary. */
  static async startBy(program: readonly string[], words: readonly string[]): Promise<Server> {
    const process = Bun.spawn([...program, ...commandLine(words)], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      // Includes what a test has added to it.
      env: globalThis.process.env,
    });
    const errors = process.stderr.text();
    const timer = setTimeout(() => process.kill("SIGKILL"), READY_LIMIT_MS);
    const path = await firstLine(process.stdout);
    clearTimeout(timer);
    if (path === undefined) throw new Error(`tsbuse ${words.join(" ")}: ${await errors}`);
    const server = new Server(process, path, errors);
    running.add(server);
    return server;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Sends a signal and waits for the end. @returns the exit status: 128 plus the signal's number if one killed it. */
  async stop(signal: NodeJS.Signals = "SIGTERM", limitMs = 30_000): Promise<number> {
    this.#process.kill(signal);
    return this.ended(limitMs);
  }

  /** Waits for the end, whatever the cause. */
  async ended(limitMs = 30_000): Promise<number> {
    await until(
      `the end of the server of ${this.path}`,
      () => this.#process.exitCode !== null || this.#process.signalCode !== null,
      limitMs,
    );
    running.delete(this);
    return this.#process.exited;
  }

  /** All of its stderr. Read it after the end. */
  get errors(): Promise<string> {
    return this.#errors;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("SIGKILL");
  }

  /** Resident memory in bytes: proc_pid_status(5), VmRSS. */
  async residentBytes(): Promise<number> {
    const status = await Bun.file(`/proc/${this.pid}/status`).text();
    return Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
  }
}

/** For afterEach: a server that a test left running must not disturb the next test. */
export async function endServers(): Promise<void> {
  for (const server of running) await server.stop("SIGKILL");
}

/** The single error line of a start that is refused. */
export async function refusal(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await run([BINARY, ...commandLine(words)]);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/^tsbuse: [^\n]+\n$/);
  return stderr;
}

/** Waits until the node, such as `nbd0`, is free again. */
export async function untilFree(name: string): Promise<void> {
  await until(`${name} is free`, () => !existsSync(`/sys/block/${name}/pid`));
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string | undefined> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return undefined;
}
