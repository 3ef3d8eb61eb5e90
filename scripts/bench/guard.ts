/** Compares a run with the kept results. */
import { compareToBest, type Comparison, type GroupResult, type Results, SUITES } from "./results.ts";

/** The smallest part of a kept ratio that passes. */
export const FLOOR = 0.75;

/** A cell in which one of ours lost. */
export interface Regression {
  /** `native memory/randread-4k-d32 tsbuse` */
  readonly place: string;
  /** `memory/randread-4k-d32` */
  readonly cell: string;
  readonly kept: number;
  /** Undefined if the kept results have it and this run does not. */
  readonly now: number | undefined;
}

/** The number of cells compared, those that both runs have, and what fell below the floor. */
export interface Verdict {
  readonly compared: number;
  readonly regressions: readonly Regression[];
}

export function judge(kept: Results, now: Results): Verdict {
  const verdicts = SUITES.flatMap((name) =>
    (now[name]?.groups ?? []).flatMap((group) => {
      const before = kept[name]?.groups.find(({ id }) => id === group.id);
      return before === undefined ? [] : judgeGroup(name, before, group);
    }),
  );
  return { compared: verdicts.length, regressions: verdicts.flatMap(({ regression }) => regression ?? []) };
}

interface Judged {
  readonly regression: Regression | undefined;
}

function judgeGroup(suite: string, before: GroupResult, group: GroupResult): Judged[] {
  return group.cells.flatMap((result) => {
    const old = before.cells.find(({ id }) => id === result.id);
    if (old === undefined) return [];
    const now = compareToBest(group, result);
    return compareToBest(before, old).map((kept) => {
      const cell = `${group.id}/${result.id}`;
      return { regression: regressionOf(suite, cell, kept, now) };
    });
  });
}

function regressionOf(
  suite: string,
  cell: string,
  kept: Comparison,
  all: readonly Comparison[],
): Regression | undefined {
  const now = all.find(({ ours }) => ours === kept.ours)?.ratio.median;
  if (now !== undefined && now >= kept.ratio.median * FLOOR) return undefined;
  return { place: `${suite} ${cell} ${kept.ours}`, cell, kept: kept.ratio.median, now };
}

/** One line. */
export function describeRegression({ place, kept, now }: Regression): string {
  const found = now === undefined ? "was not measured" : `is ${now.toFixed(2)}`;
  return `${place}: the ratio to the best peer ${found}, and was ${kept.toFixed(2)}`;
}
