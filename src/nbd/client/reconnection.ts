/** Reconnects to a server that has gone away, until it is back with the same export. */
import { messageOf, UserError } from "../../errors.ts";
import { LogLimit } from "../../serving/log-limit.ts";
import { type Established, establish } from "./establish.ts";
import { type ExportFacts, whyOther } from "./facts.ts";
import type { Remote } from "./remote.ts";

/** The first delay between attempts, in milliseconds, which doubles each time, and the longest. */
const DELAY_MS = 50;
const DELAY_MAX_MS = 1000;
/** After a shorter life, the server is not tried again at once: our requests may be what ends it. */
const STEADY_MS = 1000;

export class Reconnection {
  readonly #remote: Remote;
  readonly #facts: ExportFacts;
  readonly #connections: number;
  readonly #log: LogLimit;
  #connectedAt = performance.now();
  #endDelay: (() => void) | undefined;
  #isOver = false;

  /** @param facts that must hold again. @param connections the wanted number. */
  constructor(remote: Remote, facts: ExportFacts, connections: number, log: (line: string) => void) {
    this.#remote = remote;
    this.#facts = facts;
    this.#connections = connections;
    this.#log = new LogLimit(log, `messages about ${remote.uri}`);
  }

  /** @param reason why it is needed, as the rest of a sentence. Returns undefined once closed. */
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

  /** Stops trying. */
  close(): void {
    this.#isOver = true;
    this.#endDelay?.();
    this.#log.close();
  }

  /** Returns the connections, or why it failed. */
  async #attempt(): Promise<Established | string> {
    if (this.#isOver) return "";
    try {
      const found = await establish(this.#remote, this.#connections);
      const other = whyOther(this.#facts, found.facts);
      if (other === undefined) return found;
      this.#refuse(found);
      return `the export ${other}: give it back as it was, or disconnect`;
    } catch (error) {
      // The message of a UserError is a whole line.
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
