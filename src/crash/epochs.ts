/**
 * The moments at which a power failure is worth a try. What a disk may then hold is decided sector by sector, since a
 * write can be torn between any two and what is not flushed may be stored in any order: the value of any change that
 * had begun, unless one that is durable was begun after it was answered. The value from before all of these changes is
 * one more, unless one of them is durable.
 *
 * Between two moments at which something becomes durable, what may be lost only grows: all that is possible earlier is
 * possible at the end. So each such stretch, an epoch, is looked at once, at its end. A mark ends one as well: what is
 * expected of the disk changes there.
 */
import type { Change, History } from "./history.ts";
import { common, overlaps, type Run, type Runs, united, without } from "./ranges.ts";

/** A change that the disk may have in part, or not at all. */
export interface Pending {
  readonly change: Change;
  /** The sectors for which this is so. */
  readonly runs: Runs;
}

export interface Epoch {
  readonly index: number;
  /** The cut comes before this time. */
  readonly cut: number;
  /** The last mark before the cut. */
  readonly mark: string | undefined;
  /** What became durable since the epoch before, in the order in which it is to be stored. */
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

/** @param from the first cut of interest: what is stored before it is part of the first epoch. */
export function* epochsOf(history: History, from = 0): Generator<Epoch> {
  const { changes, marks } = history;
  const byDurability = changes
    .filter(({ durable }) => Number.isFinite(durable))
    .toSorted((one, other) => one.durable - other.durable || one.start - other.start);
  const alive = new Map<Change, Runs>();
  let stored: Pending[] = [];
  let [begun, kept, marked, index] = [0, 0, 0, 0];
  for (const cut of cutsOf(history)) {
    // In the order of time: a change supersedes only what had begun, and what begins later is kept from nothing.
    for (;;) {
      const [next, durable] = [changes[begun], byDurability[kept]];
      if (next !== undefined && next.start < cut && next.start < (durable?.durable ?? Infinity)) {
        alive.set(next, [{ first: next.first, end: next.end }]);
        begun += 1;
      } else if (durable !== undefined && durable.durable < cut) {
        stored.push(...settle(alive, durable));
        kept += 1;
      } else break;
    }
    while ((marks[marked]?.time ?? Infinity) < cut) marked += 1;
    if (cut < from) continue;
    const pending = [...alive].map(([change, runs]) => ({ change, runs }));
    yield { index, cut, mark: marks[marked - 1]?.text, stored, pending };
    stored = [];
    index += 1;
  }
}

/** Takes a change that became durable out of those that are pending, and with it what it supersedes. */
function settle(alive: Map<Change, Runs>, durable: Change): Pending[] {
  const runs = alive.get(durable) ?? [];
  const contested: Run[] = [];
  for (const [other, otherRuns] of alive) {
    if (other === durable || !overlaps(other, durable)) continue;
    if (other.done < durable.start) setRuns(alive, other, without(otherRuns, durable));
    // Both were in flight at once: the other may be stored after this one, or before.
    else if (other.start < durable.done) contested.push(...common(runs, otherRuns));
  }
  setRuns(alive, durable, united(contested));
  return runs.length === 0 ? [] : [{ change: durable, runs }];
}

function setRuns(alive: Map<Change, Runs>, change: Change, runs: Runs): void {
  if (runs.length === 0) alive.delete(change);
  else alive.set(change, runs);
}
