/** The pending changes, in the order in which they began, and by their place on the disk. */
import type { Change } from "./history.ts";
import { overlaps, type Run, type Runs } from "./ranges.ts";

/** A change that the disk may hold in part, or not at all. */
export interface Pending {
  readonly change: Change;
  /** The sectors that are uncertain. */
  readonly runs: Runs;
}

/** Changes of one length, rounded up to a power of two, by the multiples of it that they touch: at most two each. */
type Buckets = Map<number, Set<Change>>;

export class PendingChanges {
  readonly #pending = new Map<Change, Pending>();
  readonly #bySize = new Map<number, Buckets>();

  /** In the order in which they began. */
  get all(): Pending[] {
    return [...this.#pending.values()];
  }

  runsOf(change: Change): Runs {
    return this.#pending.get(change)?.runs ?? [];
  }

  /** Adds a change that began later than all others, or updates one. Removes it if `runs` is empty. */
  set(change: Change, runs: Runs): void {
    if (runs.length === 0) this.#delete(change);
    else {
      if (!this.#pending.has(change)) this.#place(change);
      this.#pending.set(change, { change, runs });
    }
  }

  /** The changes that overlap a run, in no order. Looks at few others. */
  overlapping(run: Run): Set<Change> {
    const found = new Set<Change>();
    for (const [size, buckets] of this.#bySize) {
      const [from, to] = [Math.floor(run.first / size), Math.floor((run.end - 1) / size)];
      if (to - from < buckets.size) {
        for (let bucket = from; bucket <= to; bucket += 1) addOverlapping(found, buckets.get(bucket), run);
      } else for (const bucket of buckets.values()) addOverlapping(found, bucket, run);
    }
    return found;
  }

  #place(change: Change): void {
    const size = sizeOf(change);
    const buckets = this.#bySize.get(size) ?? new Map<number, Set<Change>>();
    this.#bySize.set(size, buckets);
    for (const bucket of bucketsOf(change, size)) {
      const changes = buckets.get(bucket);
      if (changes === undefined) buckets.set(bucket, new Set([change]));
      else changes.add(change);
    }
  }

  #delete(change: Change): void {
    if (!this.#pending.delete(change)) return;
    const size = sizeOf(change);
    const buckets = this.#bySize.get(size);
    for (const bucket of bucketsOf(change, size)) {
      const changes = buckets?.get(bucket);
      changes?.delete(change);
      if (changes?.size === 0) buckets?.delete(bucket);
    }
  }
}

function addOverlapping(found: Set<Change>, changes: Iterable<Change> | undefined, run: Run): void {
  for (const change of changes ?? []) if (overlaps(change, run)) found.add(change);
}

function sizeOf({ first, end }: Run): number {
  return 2 ** Math.ceil(Math.log2(end - first));
}

function bucketsOf({ first, end }: Run, size: number): Set<number> {
  return new Set([Math.floor(first / size), Math.floor((end - 1) / size)]);
}
