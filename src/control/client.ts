/** Finds the process that serves a device, and asks it. */
import { UserError } from "../errors.ts";
import { parseServerTarget, isServerTarget } from "../nbd/server/target.ts";
import { commandOf } from "../nodes/node-state.ts";
import type { ControlCommand } from "./commands.ts";
import { isMessage, type Message } from "./connection.ts";
import { type ControlSocket, controlSockets } from "./place.ts";

/** How long a serving process may take to say what it serves, in milliseconds. */
const STATUS_LIMIT_MS = 5000;
/** The longest answer, in characters. */
export const ANSWER_MAX = 2 ** 24;

/** A connection to one serving process. One command at a time. */
export class ControlClient implements Disposable {
  /** The process ID in the process's own PID namespace. */
  readonly pid: number;
  /** Whether that ID is valid in this process's namespace, too. */
  readonly isNear: boolean;
  #socket: Bun.Socket | undefined;
  #text = "";
  readonly #decoder = new TextDecoder();
  #waiting: { resolve: (line: string) => void; reject: (error: Error) => void } | undefined;
  /** Why no more answers will come. */
  #failure: Error | undefined;

  private constructor({ pid, isNear }: ControlSocket) {
    this.pid = pid;
    this.isNear = isNear;
  }

  /** @throws Error if the connection is refused. */
  static async connect(to: ControlSocket): Promise<ControlClient> {
    const { path, pid } = to;
    const client = new ControlClient(to);
    client.#socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_, bytes) => client.#receive(bytes),
        close: () => client.#fail(new UserError(`process ${pid} has ended, or does not want to be asked`)),
        error: (_, error) => client.#fail(error),
      },
    });
    return client;
  }

  /**
   * @param limitMs Infinity for a process that is stopped, and may go on at any time.
   * @throws UserError with what the process says if it refuses, when it ends, or has not answered in time.
   */
  async ask(
    command: ControlCommand,
    request: Message = {},
    limitMs: number = STATUS_LIMIT_MS,
  ): Promise<Message> {
    if (this.#failure !== undefined) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#waiting = { resolve, reject };
    const fail = (): void => this.#fail(new UserError(whyNoAnswer(this.pid, limitMs)));
    const timer = limitMs === Infinity ? undefined : setTimeout(fail, limitMs);
    try {
      this.#socket?.write(`${JSON.stringify({ ...request, command })}\n`);
      const answer: unknown = JSON.parse(await promise);
      if (!isMessage(answer)) throw new UserError(`process ${this.pid} does not answer as tsbuse does`);
      if (typeof answer["error"] === "string") throw new UserError(answer["error"]);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#socket?.end();
  }

  #receive(bytes: Uint8Array): void {
    this.#text += this.#decoder.decode(bytes, { stream: true });
    const end = this.#text.indexOf("\n");
    if (end < 0) {
      if (this.#text.length > ANSWER_MAX)
        this.#fail(new UserError(`process ${this.pid} answers without end`));
      return;
    }
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    this.#waiting?.resolve(line);
    this.#waiting = undefined;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}

/** A serving process and what it said; undefined if it did not answer in time. */
export interface Serving {
  readonly socket: ControlSocket;
  readonly status: Message | undefined;
}

/** All serving processes. They are asked concurrently. */
export function servingProcesses(): Promise<Serving[]> {
  return Promise.all(controlSockets().map(async (socket) => ({ socket, status: await statusOf(socket) })));
}

async function statusOf(socket: ControlSocket): Promise<Message | undefined> {
  try {
    using client = await ControlClient.connect(socket);
    return await client.ask("status");
  } catch {
    // It has ended, hangs, or has too many clients. A caller that looks for another process need not know which.
    return undefined;
  }
}

/**
 * The process that serves a target. The caller disposes of it.
 * @throws UserError if none does, or if the one that may do so does not answer.
 */
export async function connectToServer(target: string): Promise<ControlClient> {
  const serving = await servingProcesses();
  const found = serving.find(({ status }) => status !== undefined && servesTarget(target, status["path"]));
  if (found === undefined) {
    const silent = serving.filter(({ status }) => status === undefined).map(({ socket }) => socket);
    throw new UserError(whyNotFound(target, silent));
  }
  return ControlClient.connect(found.socket);
}

/**
 * Asks the process that serves a target.
 * @throws UserError as {@link connectToServer} and {@link ControlClient.ask} do.
 */
export async function askServer(
  target: string,
  command: ControlCommand,
  request: Message = {},
  limitMs: number = STATUS_LIMIT_MS,
): Promise<Message> {
  using client = await connectToServer(target);
  return await client.ask(command, request, limitMs);
}

/** Whether the process with this status serves the target. */
export function servesTarget(target: string, path: unknown): boolean {
  if (typeof path !== "string") return false;
  if (!isServerTarget(target) || !isServerTarget(path)) return target === path;
  return addressOf(target) === addressOf(path);
}

/** The URI without the export's name: one address has one server. */
function addressOf(target: string): string {
  return JSON.stringify({ ...parseServerTarget(target), exportName: undefined });
}

/** @param silent processes that did not answer when they were asked what they serve. */
export function whyNotFound(target: string, silent: readonly ControlSocket[]): string {
  const [first, second] = silent;
  if (first === undefined) return `no process of tsbuse serves ${target}: see "tsbuse list"`;
  const command = first.isNear ? commandOf(first.pid) : undefined;
  const who =
    second === undefined
      ? `process ${first.pid}${command === undefined ? "" : `, "${command}",`}`
      : `each of the processes ${silent.map(({ pid }) => pid).join(", ")}`;
  return `no process of tsbuse that answers serves ${target}, and ${who} does not answer: it is stopped, or its device holds it up`;
}

function whyNoAnswer(pid: number, limitMs: number): string {
  return `process ${pid} has not answered within ${limitMs / 1000} s: it is stopped, or its device holds it up`;
}
