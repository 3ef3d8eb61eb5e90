/** A device that holds every call until the test releases it. */
import { longPattern } from "./random.ts";
import { type Hold, Shadow } from "./shadow.ts";

interface Held {
  /** `write 4096`, `flush`. */
  readonly name: string;
  readonly gate: PromiseWithResolvers<void>;
}

export class HeldDevice extends Shadow {
  readonly #held: Held[] = [];

  /** @param promptFrom offset in bytes from which on reads are answered at once. */
  constructor(
    size: number,
    readonly promptFrom = Number.POSITIVE_INFINITY,
  ) {
    super(size);
    this.bytes.set(longPattern(size));
  }

  override hold: Hold = (offset, _length, method) => {
    if (method === "read" && offset >= this.promptFrom) return undefined;
    const gate = Promise.withResolvers<void>();
    this.#held.push({ name: method === "flush" ? method : `${method} ${offset}`, gate });
    return gate.promise;
  };

  /** The names of the held calls. */
  get names(): string[] {
    return this.#held.map(({ name }) => name);
  }

  /** Releases the oldest call of this name. */
  letGo(name: string): void {
    this.#take(name).resolve();
  }

  fail(name: string, reason: unknown): void {
    this.#take(name).reject(reason);
  }

  /** Releases all calls, the last one first. */
  letAllGo(): void {
    for (const name of this.names.toReversed()) this.letGo(name);
  }

  /** Releases all calls, and holds no later ones. */
  settleDown(): void {
    this.hold = () => undefined;
    this.letAllGo();
  }

  #take(name: string): PromiseWithResolvers<void> {
    const [held] = this.#held.splice(this.names.indexOf(name), 1);
    if (held?.name !== name)
      throw new Error(`the device does not have ${name}, but ${this.names.join(", ")}`);
    return held.gate;
  }
}
