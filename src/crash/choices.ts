/** Which of an epoch's pending changes are on the disk: a few choices by rule, and any number at random. */
import type { Random } from "../values/random.ts";
import type { Pending } from "./pending-changes.ts";
import { count, type Run, type Runs } from "./ranges.ts";

export type Choice = readonly Pending[];

/** Every state of an epoch is tried if it has no more states than this many independent units would have. */
const UNITS_MAX = 12;
/** The maximum number of choices of each kind that are made by rule. */
const RULED_MAX = 32;

/** Every possible state; undefined if there are too many. @param unit sectors that are written as a whole. */
export function everyChoice(pending: readonly Pending[], unit: number): Iterable<Choice> | undefined {
  const units = new Map<number, Pending[]>();
  for (const { change, runs } of pending) {
    // Each unit at least doubles the number of states, so a long change need not be split to see that it is too much.
    if (count(runs) / unit > UNITS_MAX) return undefined;
    for (const run of inUnits(runs, unit)) {
      const part = { change, runs: [run] };
      const place = Math.floor(run.first / unit);
      const others = units.get(place);
      if (others === undefined) units.set(place, [part]);
      else others.push(part);
    }
    if (units.size > UNITS_MAX) return undefined;
  }
  const choices = [...units.values()].map(choicesOfUnit);
  const states = choices.reduce((product, { length }) => product * length, 1);
  return states > 2 ** UNITS_MAX ? undefined : combinations(choices, states);
}

/** Of changes that cover the same sectors, only one is visible, or none. */
function choicesOfUnit(parts: readonly Pending[]): readonly Choice[] {
  const [one] = parts;
  const isSame = parts.every(
    ({ runs: [run] }) => run?.first === one?.runs[0]?.first && run?.end === one?.runs[0]?.end,
  );
  if (isSame) return [[], ...parts.map((part) => [part])];
  const most = Math.min(parts.length, UNITS_MAX + 1);
  return Array.from({ length: 2 ** most }, (_, bits) =>
    parts.filter((__, index) => ((bits >> index) & 1) === 1),
  );
}

/** Every combination of one choice for each unit: counts up a number that has a digit for each unit. */
function* combinations(units: readonly (readonly Choice[])[], states: number): Generator<Choice> {
  for (let number = 0; number < states; number += 1) {
    let rest = number;
    yield units.flatMap((choices) => {
      const choice = choices[rest % choices.length] ?? [];
      rest = Math.floor(rest / choices.length);
      return choice;
    });
  }
}

/** The runs, cut at each multiple of a number of sectors. */
function inUnits(runs: Runs, unit: number): Run[] {
  const parts: Run[] = [];
  for (const { first, end } of runs) {
    for (let from = first; from < end;) {
      const to = Math.min(end, (Math.floor(from / unit) + 1) * unit);
      parts.push({ first: from, end: to });
      from = to;
    }
  }
  return parts;
}

/** All changes that had begun by some moment, all but one, and one alone. */
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

/**
 * A random part of the pending changes, or of those that had begun by some moment; one in three is torn.
 * @param unit sectors that are written as a whole.
 */
export function randomChoice(pending: readonly Pending[], random: Random, unit: number): Choice {
  const share = random.pick(SHARES);
  const begun = random.oneIn(2) ? pending : pending.slice(0, 1 + random.below(pending.length));
  return begun.flatMap(({ change, runs }) => {
    if (!random.oneIn(3)) return random.fraction() < share ? [{ change, runs }] : [];
    const left = torn(inUnits(runs, unit), random);
    return left.length === 0 ? [] : [{ change, runs: left }];
  });
}

/** Some of the units: a few present, a few missing, and so on. */
function torn(units: Runs, random: Random): Runs {
  let isThere = random.oneIn(2);
  let next = random.below(Math.min(units.length, 8));
  return units.filter((_, index) => {
    if (index > next) {
      isThere = !isThere;
      next = index + random.below(Math.min(units.length - index, 8));
    }
    return isThere;
  });
}
