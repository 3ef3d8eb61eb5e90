/** Figures of repeated measurements. */

/** The middle value, or the mean of the two middle ones. NaN for an empty list. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN;
  return (lower + upper) / 2;
}

/** The median of some values, and their range. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The spread of the ratios of pairs measured one after the other: a drift of the machine affects both alike. */
export function spreadOfRatios(over: readonly number[], under: readonly number[]): Spread {
  const ratios = over.map((value, index) => value / (under[index] ?? Number.NaN));
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) };
}

/** The values from the `shift`th on, then those before it: another order in each round, so nobody is always first. */
export function rotate<T>(values: readonly T[], shift: number): readonly T[] {
  const start = values.length === 0 ? 0 : shift % values.length;
  return [...values.slice(start), ...values.slice(0, start)];
}

/** Columns aligned to the right, except the first. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((text, column) =>
        column === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[column] ?? 0),
      )
      .join("  ");
  return rows.map((row) => line(row).trimEnd()).join("\n");
}
