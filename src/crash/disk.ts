/** The disk at the beginning of an epoch, sector by sector: only what is durable. */
import { type Contents, UNCHANGED } from "./contents.ts";
import type { Pending } from "./pending-changes.ts";
import { count, type Run } from "./ranges.ts";

/** How a state differs from the disk: values by sector. */
export type Difference = ReadonlyMap<number, number>;

export class Disk {
  readonly #values = new Map<number, number>();
  readonly #hash = new Int32Array(2);
  readonly #scratch = new Int32Array(2);

  /** @param changed is called for every sector that gets another value. */
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
    for (const [sector, value] of differenceOf(stored, this)) {
      this.contents.toggle(this.#hash, sector, this.at(sector));
      this.contents.toggle(this.#hash, sector, value);
      this.#values.set(sector, value);
      this.changed(sector);
    }
  }

  /** The sectors of a run that may not read as zeroes, in no order: a trim of a large disk has few. */
  *held(run: Run): Generator<number> {
    const before = this.contents.heldBefore(run);
    if (run.end - run.first <= this.#values.size + count(before)) {
      for (let sector = run.first; sector < run.end; sector += 1)
        if (!this.contents.isZero(sector, this.at(sector))) yield sector;
      return;
    }
    for (const [sector, value] of this.#values)
      if (sector >= run.first && sector < run.end && !this.contents.isZero(sector, value)) yield sector;
    for (const { first, end } of before)
      for (let sector = first; sector < end; sector += 1) if (!this.#values.has(sector)) yield sector;
  }

  /** A hash of the disk's contents with a difference. */
  hashWith(difference: Difference): string {
    this.#scratch.set(this.#hash);
    for (const [sector, value] of difference) {
      this.contents.toggle(this.#scratch, sector, this.at(sector));
      this.contents.toggle(this.#scratch, sector, value);
    }
    return `${this.#scratch[0]} ${this.#scratch[1]}`;
  }
}

/** The difference that these changes make to the disk. Later ones overwrite earlier ones. */
export function differenceOf(applied: readonly Pending[], disk: Disk): Map<number, number> {
  const difference = new Map<number, number>();
  for (const { change, runs } of applied) {
    for (const run of runs) {
      if (change.value === 0) clear(difference, run, disk);
      else
        for (let sector = run.first; sector < run.end; sector += 1)
          difference.set(sector, change.value + sector - change.first);
    }
  }
  return difference;
}

/** Zeroes over zeroes make no difference. */
function clear(difference: Map<number, number>, run: Run, disk: Disk): void {
  if (run.end - run.first < difference.size)
    for (let sector = run.first; sector < run.end; sector += 1) difference.delete(sector);
  else
    for (const sector of difference.keys())
      if (sector >= run.first && sector < run.end) difference.delete(sector);
  for (const sector of disk.held(run)) difference.set(sector, 0);
}
