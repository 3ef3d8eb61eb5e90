/** The published speed is the measured one: the charts and tables match the results. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { drawChart } from "../../../scripts/bench/chart.ts";
import { formatSummary, formatTables, replaceFigures } from "../../../scripts/bench/report.ts";
import { formatResults, glance, parseResults } from "../../../scripts/bench/results.ts";

const ROOT = join(import.meta.dir, "../../..");
const read = (name: string): string => readFileSync(join(ROOT, name), "utf8");
const text = read("bench/results.json");
const kept = parseResults(text, "bench/results.json");

test("the kept results are whole, and their ratios are those of their rates", () => {
  expect(formatResults(kept)).toBe(text);
  expect(kept.native?.groups.length).toBeGreaterThan(0);
});

test("the charts are theirs", () => {
  expect(read("bench/results.svg")).toBe(drawChart(kept));
  expect(read("bench/glance.svg")).toBe(drawChart(glance(kept)));
});

test.each([
  ["bench/README.md", formatTables(kept)],
  ["README.md", formatSummary(kept)],
])("so are the figures of %s", (name, figures) => {
  const page = read(name);
  expect(replaceFigures(page, figures, name)).toBe(page);
});
