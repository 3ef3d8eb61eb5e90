/**
 * The serving processes, watched from outside. Each is asked separately, one question at a time. A process that is
 * stopped, or blocked by its device, delays no other, and is asked again when it has answered.
 */
import { ControlClient, servesTarget } from "../../control/client.ts";
import { type ControlSocket, knownSockets } from "../../control/place.ts";
import { parseStatistics, type Statistics } from "../../control/statistics.ts";
import { messageOf } from "../../errors.ts";

/** What is known of a serving process. */
export interface Seen {
  readonly socket: ControlSocket;
  /** What it serves, once it has reported that. */
  path: string | undefined;
  /** The last two answers. A process that has ended, or has another version, has none. */
  latest: Statistics | undefined;
  earlier: Statistics | undefined;
  /** Its message if it cannot report statistics. */
  refusal: string | undefined;
  /** When the unanswered question was asked, by performance.now(). */
  askedAt: number | undefined;
}

export class Watched {
  readonly #seen = new Map<string, Seen>();
  readonly #target: string | undefined;
  readonly #watchMs: number;
  readonly #answers = new Set<Promise<void>>();

  /** @param target undefined for all. @param watchMs how long the layers are watched after a question. */
  constructor(target: string | undefined, watchMs: number) {
    this.#target = target;
    this.#watchMs = watchMs;
  }

  /** Processes that serve what is watched, sorted by path. */
  get all(): Seen[] {
    const shown = [...this.#seen.values()].filter(
      ({ path }) => this.#target === undefined || this.#isTarget(path),
    );
    return shown.toSorted((one, other) => (one.path ?? "~").localeCompare(other.path ?? "~"));
  }

  /** Whether none is known yet, but a process that has not reported what it serves may be one. */
  get isAwaited(): boolean {
    return this.all.length === 0 && this.silent.length > 0;
  }

  /** Processes that have not reported what they serve. */
  get silent(): ControlSocket[] {
    return [...this.#seen.values()].filter(({ path }) => path === undefined).map(({ socket }) => socket);
  }

  /** Asks all processes that owe no answer. Settles when they have answered, or after `limitMs`. */
  async ask(limitMs: number): Promise<void> {
    const sockets = knownSockets();
    for (const [path, { askedAt }] of this.#seen)
      if (askedAt === undefined && !sockets.some((socket) => socket.path === path)) this.#seen.delete(path);
    for (const socket of sockets) {
      const seen = this.#seen.get(socket.path) ?? newcomer(socket);
      if (seen.askedAt !== undefined) continue;
      const answer = this.#askOne(seen).finally(() => this.#answers.delete(answer));
      this.#answers.add(answer);
    }
    const asked = [...this.#answers];
    await Promise.race([Promise.all(asked), Bun.sleep(limitMs)]);
  }

  #isTarget(path: string | undefined): boolean {
    return path !== undefined && this.#target !== undefined && servesTarget(this.#target, path);
  }

  async #askOne(seen: Seen): Promise<void> {
    seen.askedAt = performance.now();
    this.#seen.set(seen.socket.path, seen);
    try {
      using client = await ControlClient.connect(seen.socket);
      const status = seen.path === undefined ? await client.ask("status", {}, Infinity) : undefined;
      if (typeof status?.["path"] === "string") seen.path = status["path"];
      if (this.#target === undefined || this.#isTarget(seen.path)) await this.#askStatistics(seen, client);
    } catch {
      // The process has ended, or takes no questions: there is nothing to show.
      this.#seen.delete(seen.socket.path);
    }
    seen.askedAt = undefined;
  }

  async #askStatistics(seen: Seen, client: ControlClient): Promise<void> {
    try {
      const answer = await client.ask("statistics", { watchMs: this.#watchMs }, Infinity);
      const statistics = parseStatistics(answer);
      seen.earlier = seen.latest;
      seen.latest = statistics;
      seen.path = statistics?.status.path ?? seen.path;
      seen.refusal = statistics === undefined ? "it has another version" : undefined;
    } catch (error) {
      // If the process has ended, the next question finds out, should its socket still exist.
      seen.latest = undefined;
      seen.refusal = messageOf(error);
    }
  }
}

function newcomer(socket: ControlSocket): Seen {
  return {
    socket,
    path: undefined,
    latest: undefined,
    earlier: undefined,
    refusal: undefined,
    askedAt: undefined,
  };
}
