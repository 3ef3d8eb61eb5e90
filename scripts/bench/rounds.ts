/** Measures contestants in turn, cell by cell: common to all suites. */
import type { Cell } from "./cells.ts";
import type { CellResult, Contestant, Figures } from "./results.ts";
import { median, rotate } from "./statistics.ts";

/** One measurement. */
export interface Sample {
  readonly rate: number;
  readonly cpu?: number;
  readonly p50?: number;
  readonly p99?: number;
}

export interface Course<T extends Contestant> {
  readonly group: string;
  readonly cells: readonly Cell[];
  readonly contestants: readonly T[];
  readonly rounds: number;
  /**
   * Measures contestants in a cell, one after the other. Round 0 warms up and is not counted.
   *
   * @returns samples by contestant, without those that do not support the cell's requests.
   */
  readonly measure: (order: readonly T[], cell: Cell, round: number) => Promise<ReadonlyMap<string, Sample>>;
}

/** Every round of a cell measures each contestant once, and starts with a different one. */
export async function runCourse<T extends Contestant>(course: Course<T>): Promise<CellResult[]> {
  const results: CellResult[] = [];
  for (const cell of course.cells) {
    const samples = new Map<string, Sample[]>(course.contestants.map(({ id }) => [id, []]));
    for (let round = 0; round <= course.rounds; round += 1) {
      const measured = await course.measure(rotate(course.contestants, round), cell, round);
      if (round > 0) for (const [id, sample] of measured) samples.get(id)?.push(sample);
    }
    const whole = [...samples].filter(([, list]) => list.length === course.rounds);
    const figures = Object.fromEntries(whole.map(([id, list]) => [id, figuresOf(list)]));
    results.push({ id: cell.id, name: cell.name, figures });
    const shown = whole.map(([id]) => `${id} ${median(figures[id]?.rates ?? []).toFixed(0)}`);
    console.error(`${course.group}: ${cell.name}: ${shown.join(", ")}`);
  }
  return results;
}

function figuresOf(samples: readonly Sample[]): Figures {
  const [cpu, p50, p99] = (["cpu", "p50", "p99"] as const).map((key) => {
    const values = samples.flatMap((sample) => sample[key] ?? []);
    return values.length === samples.length ? values.map(rounded) : undefined;
  });
  return {
    rates: samples.map(({ rate }) => rounded(rate)),
    ...(cpu !== undefined && { cpu }),
    ...(p50 !== undefined && { p50 }),
    ...(p99 !== undefined && { p99 }),
  };
}

/** Five digits: a measurement is less precise than that. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
