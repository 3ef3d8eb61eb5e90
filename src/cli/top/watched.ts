/**
 * The processes that serve, watched from outside. Each is asked by itself, and once at a time: one that is stopped, or
 * whose device holds it up, keeps nobody waiting, and is asked again when it has answered.
 */
import { ControlClient, servesTarget } from "../../control/client.ts";
import { type ControlSocket, knownSockets } from "../../control/place.ts";
import { parseStatistics, type Statistics } from "../../control/statistics.ts";
import { messageOf } from "../../errors.ts";

/** What is known of a process that serves. */
export interface Seen {
  readonly socket: ControlSocket;
  /** What it serves, once it has said so. */
  path: string | undefined;
  /** The last two answers; one that has ended, or is of another version, has none. */
  latest: Statistics | undefined;
  earlier: Statistics | undefined;
  /** What it says though it cannot tell what it has counted. */
  refusal: string | undefined;
  /** Since when it owes an answer, by performance.now(). */
  askedAt: number | undefined;
}

export class Watched {
  readonly #seen = new Map<string, Seen>();
  readonly #target: string | undefined;
  readonly #watchMs: number;
  readonly #answers = new Set<Promise<void>>();

  /** @param target undefined for all. @param watchMs for how long the layers are watched after a question. */
  constructor(target: string | undefined, watchMs: number) {
    this.#target = target;
    this.#watchMs = watchMs;
  }

  /** Those that serve what is watched, by path. */
  get all(): Seen[] {
    const shown = [...this.#seen.values()].filter(
      ({ path }) => this.#target === undefined || this.#isTarget(path),
    );
    return shown.toSorted((one, other) => (one.path ?? "~").localeCompare(other.path ?? "~"));
  }

  /** Whether none of them is known yet, and one that has not said what it serves may be it. */
  get isAwaited(): boolean {
    return this.all.length === 0 && this.silent.length > 0;
  }

  /** Those that have not said what they serve. */
  get silent(): ControlSocket[] {
    return [...this.#seen.values()].filter(({ path }) => path === undefined).map(({ socket }) => socket);
  }

  /** Asks all that do not owe an answer; settles when they have answered, or after `limitMs`. */
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
      // It has ended, or takes no questions: there is nothing to show.
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
      seen.refusal = statistics === undefined ? "it counts in another way" : undefined;
    } catch (error) {
      // One that has ended is met with the next question, if its socket is there still.
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
