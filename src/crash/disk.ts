/** The disk at the beginning of an epoch, sector by sector: what is durable, and nothing else. */
import { type Contents, UNCHANGED } from "./contents.ts";
import type { Pending } from "./epochs.ts";

/** What is different in a state: values by sector. */
export type Difference = ReadonlyMap<number, number>;

export class Disk {
  readonly #values = new Map<number, number>();
  readonly #hash = new Int32Array(2);
  readonly #scratch = new Int32Array(2);

  /** @param changed is told of every sector that gets another value. */
  constructor(
    readonly contents: Contents,
    readonly changed: (sector: number) => void,
  ) {}

  /** A value of {@link Contents}. */
  at(sector: number): number {
    return this.#values.get(sector) ?? UNCHANGED;
  }

  /** The sectors that have been changed. */
  get sectors(): Iterable<number> {
    return this.#values.keys();
  }

  store(stored: readonly Pending[]): void {
    for (const [sector, value] of differenceOf(stored)) {
      this.contents.toggle(this.#hash, sector, this.at(sector));
      this.contents.toggle(this.#hash, sector, value);
      this.#values.set(sector, value);
      this.changed(sector);
    }
  }

  /** Names the contents that the disk has with a difference. */
  hashWith(difference: Difference): string {
    this.#scratch.set(this.#hash);
    for (const [sector, value] of difference) {
      this.contents.toggle(this.#scratch, sector, this.at(sector));
      this.contents.toggle(this.#scratch, sector, value);
    }
    return `${this.#scratch[0]} ${this.#scratch[1]}`;
  }
}

/** Later ones lie over those before. */
export function differenceOf(applied: readonly Pending[]): Map<number, number> {
  const difference = new Map<number, number>();
  for (const { change, runs } of applied) {
    for (const { first, end } of runs) {
      for (let sector = first; sector < end; sector += 1)
        difference.set(sector, change.value === 0 ? 0 : change.value + sector - change.first);
    }
  }
  return difference;
}
