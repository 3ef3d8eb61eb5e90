/**
 * The moments at which a power failure is worth trying. What a disk may then hold is decided sector by sector, since a
 * write can be torn between any two sectors, and unflushed changes may reach the disk in any order. A sector may have
 * the value of any change that had begun, unless a durable one began after that change was answered. It may also have
 * the value from before all of these changes, unless one of them is durable.
 *
 * Between two moments at which something becomes durable, what may be lost only grows: whatever is possible earlier is
 * possible at the end. So each such stretch, an epoch, is examined once, at its end. A mark ends an epoch too, because
 * what is expected of the disk changes there.
 */
import type { Change, History } from "./history.ts";
import { type Pending, PendingChanges } from "./pending-changes.ts";
import { common, type Run, united, without } from "./ranges.ts";

export interface Epoch {
  readonly index: number;
  /** The cut comes before this time. */
  readonly cut: number;
  /** The last mark before the cut. */
  readonly mark: string | undefined;
  /** What became durable since the previous epoch, in the order in which to store it. */
  readonly stored: readonly Pending[];
  /** In the order in which they began. */
  readonly pending: readonly Pending[];
}

/** The times before which an epoch ends, in order: the last is the end of the record. */
function cutsOf({ changes, marks, end }: History): readonly number[] {
  const durable = changes.map((change) => change.durable).filter((time) => Number.isFinite(time));
  const times = new Set([...durable, ...marks.map(({ time }) => time), end]);
  return [...times].toSorted((one, other) => one - other);
}

/** @param from the first cut of interest: everything stored before it belongs to the first epoch. */
export function* epochsOf(history: History, from = 0): Generator<Epoch> {
  const { changes, marks } = history;
  const byDurability = changes
    .filter(({ durable }) => Number.isFinite(durable))
    .toSorted((one, other) => one.durable - other.durable || one.start - other.start);
  const alive = new PendingChanges();
  let stored: Pending[] = [];
  let [begun, kept, marked, index] = [0, 0, 0, 0];
  for (const cut of cutsOf(history)) {
    // In order of time: a change supersedes only what had begun before it, never what begins later.
    for (;;) {
      const [next, durable] = [changes[begun], byDurability[kept]];
      if (next !== undefined && next.start < cut && next.start < (durable?.durable ?? Infinity)) {
        alive.set(next, [{ first: next.first, end: next.end }]);
        begun += 1;
      } else if (durable !== undefined && durable.durable < cut) {
        const first = kept;
        while (byDurability[kept]?.durable === durable.durable) kept += 1;
        stored.push(...settleAll(alive, byDurability.slice(first, kept)));
      } else break;
    }
    while ((marks[marked]?.time ?? Infinity) < cut) marked += 1;
    if (cut < from) continue;
    yield { index, cut, mark: marks[marked - 1]?.text, stored, pending: alive.all };
    stored = [];
    index += 1;
  }
}

/** Settles changes that became durable together. The last one first: what it supersedes can be skipped. */
function settleAll(alive: PendingChanges, durable: readonly Change[]): Pending[] {
  return durable
    .toReversed()
    .flatMap((change) => settle(alive, change))
    .toReversed();
}

/** Removes a change that became durable from the pending ones, and with it what it supersedes. */
function settle(alive: PendingChanges, durable: Change): Pending[] {
  const runs = alive.runsOf(durable);
  if (runs.length === 0) return [];
  const contested: Run[] = [];
  for (const other of alive.overlapping(durable)) {
    if (other === durable) continue;
    const otherRuns = alive.runsOf(other);
    if (other.done < durable.start) alive.set(other, without(otherRuns, durable));
    // Both were in flight at the same time: the other may be stored after this one, or before.
    else if (other.start < durable.done) contested.push(...common(runs, otherRuns));
  }
  alive.set(durable, united(contested));
  return [{ change: durable, runs }];
}
