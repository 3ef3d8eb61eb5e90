/** The result of a replay, as a table. */
import type { Histogram } from "../layers/histogram.ts";
import { formatDuration } from "../values/duration.ts";
import type { ReplayResult } from "./run.ts";

const HEADINGS = [
  "COMMAND",
  "REQUESTS",
  "ERRORS",
  "P50",
  "P99",
  "MAX",
  "THEN:",
  "ERRORS",
  "P50",
  "P99",
  "MAX",
];

export function resultText({ commands, tookMs, tookThenMs, lateMs }: ReplayResult, fast: boolean): string {
  const rows = commands.map(({ command, requests, errors, errorsThen, now, before }) => [
    command,
    String(requests),
    String(errors),
    ...latencies(now),
    "",
    String(errorsThen),
    ...latencies(before),
  ]);
  const table = [HEADINGS, ...rows];
  const widths = HEADINGS.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  "),
  );
  const late = fast ? "" : `; a request was begun up to ${lateMs.toFixed(1)} ms late`;
  lines.push(`${seconds(tookMs)} now, ${seconds(tookThenMs)} then${late}`);
  return lines.join("\n");
}

function latencies(histogram: Histogram): string[] {
  return [histogram.percentile(0.5), histogram.percentile(0.99), histogram.max].map((latency) =>
    latency === 0 ? "-" : formatDuration(latency),
  );
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(3)} s`;
}
