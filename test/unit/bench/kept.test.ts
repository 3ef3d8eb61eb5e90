/** What the project shows of its speed is what was measured: the chart and README's figures are those of the results. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { drawChart } from "../../../scripts/bench/chart.ts";
import { formatForReadme, replaceInReadme } from "../../../scripts/bench/report.ts";
import { formatResults, parseResults } from "../../../scripts/bench/results.ts";

const ROOT = join(import.meta.dir, "../../..");
const read = (name: string): string => readFileSync(join(ROOT, name), "utf8");
const text = read("bench/results.json");
const kept = parseResults(text, "bench/results.json");

test("the kept results are whole, and their ratios are those of their rates", () => {
  expect(formatResults(kept)).toBe(text);
  expect(kept.native?.groups.length).toBeGreaterThan(0);
});

test("the chart is theirs", () => expect(read("bench/results.svg")).toBe(drawChart(kept)));

test("so are README's figures", () => {
  const readme = read("README.md");
  expect(replaceInReadme(readme, formatForReadme(kept))).toBe(readme);
});
