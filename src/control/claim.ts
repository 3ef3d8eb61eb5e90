/** Takes a device over from the process that serves it: the other side of handover.ts. */
import { UserError, messageOf } from "../errors.ts";
import { close } from "../libc/file.ts";
import { OtherProcess } from "../libc/pidfd.ts";
import type { TakeOver } from "../transport.ts";
import { type ControlClient, connectToServer } from "./client.ts";
import { isMessage, type Message } from "./connection.ts";
import { PROTOCOL } from "./handover.ts";

/** The limit for the answers to requests in flight, in milliseconds. */
const RELEASE_LIMIT_MS = 30_000;
/** The limit for the answer of a process that is told to end. */
const DONE_LIMIT_MS = 60_000;
/** How long a process that does not answer may take to be gone. */
const DEATH_LIMIT_MS = 1000;
/** When the log reports that the other process has released the device and has not ended. */
const NEWS_MS = 10_000;
/** How often to look whether it has ended: users wait for that. After the news they have waited long. */
const POLL_MS = 1;
const POLL_LATER_MS = 50;

/** What the previous process hands over. */
export class Inherited {
  readonly kind: string;
  readonly facts: Message;
  readonly #isData: boolean;
  readonly #fds = new Map<string, number>();

  /** @throws UserError if its descriptors are unavailable. */
  constructor(heirloom: Message, from: OtherProcess) {
    const { kind, facts, fds, isData } = heirloom;
    this.#isData = isData === true;
    this.kind = String(kind);
    this.facts = isMessage(facts) ? facts : {};
    for (const [name, fd] of Object.entries(isMessage(fds) ? fds : {})) {
      try {
        this.#fds.set(name, descriptorOf(from, Number(fd)));
      } catch (error) {
        this.close();
        throw error;
      }
    }
  }

  /** Whether all data of the device came along and was taken. */
  get hasData(): boolean {
    return this.#isData && this.#fds.size === 0;
  }

  /** A descriptor, which then belongs to the caller; undefined if there is none of that name. */
  take(name: string): number | undefined {
    const fd = this.#fds.get(name);
    this.#fds.delete(name);
    return fd;
  }

  /** Closes the descriptors that nobody took. */
  close(): void {
    for (const fd of this.#fds.values()) close(fd);
    this.#fds.clear();
  }
}

/** @throws UserError */
function descriptorOf(process: OtherProcess, fd: number): number {
  try {
    return process.descriptor(fd);
  } catch (error) {
    throw new UserError(
      `the open files of process ${process.pid} are unavailable (${messageOf(error)}): run it as root, outside of a container`,
      { cause: error },
    );
  }
}

/** Of a process that has let go and does not end. */
interface News {
  readonly log: (line: string) => void;
  /** Milliseconds. */
  readonly afterMs?: number;
}

export class Claim implements TakeOver, Disposable {
  readonly inherited: Inherited | undefined;
  readonly identity: string | undefined;
  /** The socket of the previous process's service manager. */
  readonly notifySocket: string | undefined;
  readonly #client: ControlClient;
  readonly #other: OtherProcess;
  readonly #fds: Message;
  readonly #log: (line: string) => void;
  readonly #newsMs: number;

  private constructor(client: ControlClient, other: OtherProcess, answer: Message, news: News) {
    this.#client = client;
    this.#other = other;
    this.#log = news.log;
    this.#newsMs = news.afterMs ?? NEWS_MS;
    const { heirloom, identity, fds, notifySocket } = answer;
    this.notifySocket = typeof notifySocket === "string" && notifySocket !== "" ? notifySocket : undefined;
    this.identity = typeof identity === "string" ? identity : undefined;
    this.#fds = isMessage(fds) ? fds : {};
    this.inherited = isMessage(heirloom) ? new Inherited(heirloom, other) : undefined;
  }

  /** The previous process. */
  get pid(): number {
    return this.#other.pid;
  }

  get hasData(): boolean {
    return this.inherited?.hasData === true;
  }

  /** @throws UserError when nobody serves the target, or it cannot be handed over. Nothing is changed. */
  static async make(target: string, news: News): Promise<Claim> {
    const client = await connectToServer(target);
    try {
      if (!client.isNear)
        throw new UserError(
          `process ${client.pid}, which serves ${target}, is in another PID namespace: run this there`,
        );
      // Before it answers, so that this process, and no later one with its ID, is the one that answers.
      const other = new OtherProcess(client.pid);
      // The main process of another service must stay with that service.
      const isFree = (process.env["NOTIFY_SOCKET"] ?? "") === "";
      const request = { protocol: PROTOCOL, ...(isFree && { pid: process.pid }) };
      return new Claim(client, other, await client.ask("handover-begin", request), news);
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  descriptor(name: string): number {
    const fd = this.#fds[name];
    return typeof fd === "number" ? descriptorOf(this.#other, fd) : -1;
  }

  async release(): Promise<boolean> {
    try {
      const { how } = await this.#client.ask("handover-release", {}, RELEASE_LIMIT_MS);
      if (how === "stays") return true;
    } catch (error) {
      // A killed process has released the device, too, and what came along may be the only copy of the data.
      if (await this.#endsWithin(DEATH_LIMIT_MS)) return false;
      throw error;
    }
    await this.#end();
    return true;
  }

  async done(): Promise<void> {
    if (this.#other.hasEnded) return;
    try {
      await this.#client.ask("handover-done", {}, DONE_LIMIT_MS);
    } catch (error) {
      if (!(await this.#endsWithin(DEATH_LIMIT_MS))) throw error;
    }
  }

  /** However long it takes: it may wait for a store that is away, and nobody else serves its users. */
  async #end(): Promise<void> {
    if (await this.#endsWithin(this.#newsMs)) return;
    const { pid } = this.#other;
    this.#log(
      `process ${pid} has released the device and is still closing it: requests wait; if it hangs, end it with "kill -9 ${pid}"`,
    );
    await this.#endsWithin(Infinity, POLL_LATER_MS);
  }

  async #endsWithin(limitMs: number, pollMs = POLL_MS): Promise<boolean> {
    const deadline = performance.now() + limitMs;
    while (!this.#other.hasEnded && performance.now() < deadline) await Bun.sleep(pollMs);
    return this.#other.hasEnded;
  }

  [Symbol.dispose](): void {
    this.inherited?.close();
    this.#client[Symbol.dispose]();
    this.#other[Symbol.dispose]();
  }
}
