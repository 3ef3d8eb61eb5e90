/** Which of the pending changes of an epoch a disk has: a few by rule, and as many as one likes by chance. */
import type { Random } from "../values/random.ts";
import type { Pending } from "./epochs.ts";
import { count, type Runs } from "./ranges.ts";

export type Choice = readonly Pending[];

/** Epochs of no more states than that are gone through from one end to the other. */
const EXHAUSTIVE_MAX = 4096;
/** How many of a kind are made by rule. */
const RULED_MAX = 32;

/** Every state that there is, sector by sector; undefined: there are too many. */
export function everyChoice(pending: readonly Pending[]): Iterable<Choice> | undefined {
  const sectors = new Map<number, Pending[]>();
  for (const each of pending) {
    if (2 ** (sectors.size + count(each.runs)) > EXHAUSTIVE_MAX ** 2) return undefined;
    for (const run of each.runs) {
      for (let sector = run.first; sector < run.end; sector += 1) {
        const part: Pending = { change: each.change, runs: [{ first: sector, end: sector + 1 }] };
        const others = sectors.get(sector);
        if (others === undefined) sectors.set(sector, [part]);
        else others.push(part);
      }
    }
  }
  const digits = [...sectors.values()];
  const states = digits.reduce((product, { length }) => product * (length + 1), 1);
  return states > EXHAUSTIVE_MAX ? undefined : combinations(digits, states);
}

/** Counts through the numbers whose digits say which of a sector's values is taken; 0: none. */
function* combinations(digits: readonly (readonly Pending[])[], states: number): Generator<Choice> {
  for (let number = 0; number < states; number += 1) {
    let rest = number;
    yield digits.flatMap((values) => {
      const value = values[(rest % (values.length + 1)) - 1];
      rest = Math.floor(rest / (values.length + 1));
      return value === undefined ? [] : [value];
    });
  }
}

/** All that had begun by some moment, all but one, and one alone. */
export function* ruledChoices(pending: readonly Pending[], random: Random): Generator<Choice> {
  const some =
    pending.length <= RULED_MAX
      ? [...pending.keys()]
      : Array.from({ length: RULED_MAX }, () => random.below(pending.length));
  for (const index of some) {
    yield pending.slice(0, index);
    yield pending.toSpliced(index, 1);
    yield pending.slice(index, index + 1);
  }
}

/** How likely a change is to be there. */
const SHARES = [0.1, 0.5, 0.9] as const;

/** Some changes, or all that had begun by some moment but for a few; one in three is torn. */
export function randomChoice(pending: readonly Pending[], random: Random): Choice {
  const share = random.pick(SHARES);
  const begun = random.oneIn(2) ? pending : pending.slice(0, 1 + random.below(pending.length));
  return begun.flatMap((each) => {
    if (!random.oneIn(3)) return random.fraction() < share ? [each] : [];
    const runs = torn(each.runs, random);
    return runs.length === 0 ? [] : [{ change: each.change, runs }];
  });
}

/** Some of the sectors. */
function torn(runs: Runs, random: Random): Runs {
  const parts: { first: number; end: number }[] = [];
  for (const { first, end } of runs) {
    let isThere = random.oneIn(2);
    for (let sector = first; sector < end;) {
      const next = Math.min(end, sector + 1 + random.below(Math.min(end - sector, 8)));
      if (isThere) parts.push({ first: sector, end: next });
      isThere = !isThere;
      sector = next;
    }
  }
  return parts;
}
