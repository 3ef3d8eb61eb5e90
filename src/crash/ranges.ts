/** Sets of sectors: runs in order, with gaps between them. Ends are not included. */

export interface Run {
  readonly first: number;
  readonly end: number;
}

/** In order, without overlaps. */
export type Runs = readonly Run[];

export function overlaps(one: Run, other: Run): boolean {
  return one.first < other.end && other.first < one.end;
}

/** Which of `runs` overlap `run`: the index of the first, and the index after the last. */
function touched(runs: Runs, run: Run): readonly [number, number] {
  const from = firstIndex(runs, ({ end }) => end > run.first);
  let to = from;
  while ((runs[to]?.first ?? Infinity) < run.end) to += 1;
  return [from, to];
}

/** The index of the first item for which `holds` is true, as it is for all later ones; the length if for none. */
function firstIndex(runs: Runs, holds: (run: Run) => boolean): number {
  let [low, high] = [0, runs.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const run = runs[middle];
    if (run !== undefined && holds(run)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The sectors of `runs` that are not in `run`. */
export function without(runs: Runs, run: Run): Runs {
  const [from, to] = touched(runs, run);
  if (from === to) return runs;
  const left = runs.slice(from, to).flatMap(({ first, end }) =>
    [
      { first, end: Math.min(end, run.first) },
      { first: Math.max(first, run.end), end },
    ].filter((part) => part.first < part.end),
  );
  return runs.toSpliced(from, to - from, ...left);
}

/** The sectors in both. */
export function common(runs: Runs, others: Runs): Runs {
  return runs.flatMap((run) =>
    others
      .slice(...touched(others, run))
      .map(({ first, end }) => ({ first: Math.max(first, run.first), end: Math.min(end, run.end) })),
  );
}

/** The sectors in any of the runs, which may overlap and come in any order. */
export function united(runs: Runs): Runs {
  const sorted = runs.toSorted((one, other) => one.first - other.first);
  const result: { first: number; end: number }[] = [];
  for (const { first, end } of sorted) {
    const last = result.at(-1);
    if (last !== undefined && first <= last.end) last.end = Math.max(last.end, end);
    else result.push({ first, end });
  }
  return result;
}

/** The number of sectors. */
export function count(runs: Runs): number {
  return runs.reduce((sum, { first, end }) => sum + end - first, 0);
}
