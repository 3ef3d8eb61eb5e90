/** Sets of sectors: runs that follow one another, with gaps between them. Ends are not included. */

export interface Run {
  readonly first: number;
  readonly end: number;
}

/** In order, without overlaps. */
export type Runs = readonly Run[];

export function overlaps(one: Run, other: Run): boolean {
  return one.first < other.end && other.first < one.end;
}

/** What is in `runs`, and not in `run`. */
export function without(runs: Runs, run: Run): Runs {
  if (!runs.some((each) => overlaps(each, run))) return runs;
  return runs.flatMap(({ first, end }) =>
    [
      { first, end: Math.min(end, run.first) },
      { first: Math.max(first, run.end), end },
    ].filter((part) => part.first < part.end),
  );
}

/** What is in both. */
export function common(runs: Runs, others: Runs): Runs {
  return runs.flatMap((run) =>
    others
      .filter((other) => overlaps(run, other))
      .map(({ first, end }) => ({ first: Math.max(first, run.first), end: Math.min(end, run.end) })),
  );
}

/** How many sectors. */
export function count(runs: Runs): number {
  return runs.reduce((sum, { first, end }) => sum + end - first, 0);
}
