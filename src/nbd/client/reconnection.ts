/** Finding a server again that has gone away: until it is back, with the export that it had. */
import { messageOf, UserError } from "../../errors.ts";
import { LogLimit } from "../../serving/log-limit.ts";
import { type Established, establish } from "./establish.ts";
import { type ExportFacts, whyOther } from "./facts.ts";
import type { Remote } from "./remote.ts";

/** Between two attempts, in milliseconds: at first, doubled from one to the next, and at most. */
const DELAY_MS = 50;
const DELAY_MAX_MS = 1000;
/** A server that has been there for less is not asked again at once: the requests may be what ends it. */
const STEADY_MS = 1000;

export class Reconnection {
  readonly #remote: Remote;
  readonly #facts: ExportFacts;
  readonly #connections: number;
  readonly #log: LogLimit;
  #connectedAt = performance.now();
  #endDelay: (() => void) | undefined;
  #isOver = false;

  /** @param facts what the export must be again. @param connections how many are wanted. */
  constructor(remote: Remote, facts: ExportFacts, connections: number, log: (line: string) => void) {
    this.#remote = remote;
    this.#facts = facts;
    this.#connections = connections;
    this.#log = new LogLimit(log, `messages about ${remote.uri}`);
  }

  /** @param reason why it is needed, as the rest of a sentence. Returns undefined when it is over. */
  async again(reason: string): Promise<Established | undefined> {
    const since = performance.now();
    this.#say(`${reason}: requests wait until it is back`);
    let told = "";
    let delayMs = since - this.#connectedAt < STEADY_MS ? DELAY_MS : 0;
    for (;;) {
      await this.#delay(delayMs);
      const found = await this.#attempt();
      if (this.#isOver) return this.#refuse(found);
      if (typeof found !== "string") {
        this.#connectedAt = performance.now();
        this.#say(`connected again after ${((this.#connectedAt - since) / 1000).toFixed(1)} s`);
        return found;
      }
      if (found !== told) this.#say(`${found}; waiting for it`);
      told = found;
      delayMs = Math.min(DELAY_MAX_MS, Math.max(DELAY_MS, 2 * delayMs));
    }
  }

  /** Looks no further. */
  close(): void {
    this.#isOver = true;
    this.#endDelay?.();
    this.#log.close();
  }

  /** Returns why it was in vain where it was. */
  async #attempt(): Promise<Established | string> {
    if (this.#isOver) return "";
    try {
      const found = await establish(this.#remote, this.#connections);
      const other = whyOther(this.#facts, found.facts);
      if (other === undefined) return found;
      this.#refuse(found);
      return `the export ${other}: give it back as it was, or disconnect`;
    } catch (error) {
      // That of a UserError is a line of its own.
      return error instanceof UserError
        ? error.message.replace(`${this.#remote.uri} `, "it ").replace(`${this.#remote.uri}: `, "")
        : messageOf(error);
    }
  }

  #refuse(found: Established | string): undefined {
    if (typeof found !== "string") for (const link of found.links) link.close();
  }

  async #delay(delayMs: number): Promise<void> {
    if (this.#isOver) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, delayMs);
    this.#endDelay = resolve;
    await promise;
    clearTimeout(timer);
  }

  #say(text: string): void {
    this.#log.say(`${this.#remote.uri}: ${text}`);
  }
}
