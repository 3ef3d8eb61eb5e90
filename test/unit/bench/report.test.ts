import { expect, test } from "bun:test";
import { formatReport, formatSummary, formatTables, replaceFigures } from "../../../scripts/bench/report.ts";
import { RESULTS, WITH_TWIN } from "./sample.ts";

test("the terminal's table has every rate, the ratio to each other, and the spread of that to the best", () => {
  const lines = formatReport(RESULTS).split("\n");
  const row = lines.find((line) => line.startsWith("4k random read, depth 32  tsbuse"));
  expect(row?.split(/ {2,}/)).toEqual([
    "4k random read, depth 32",
    "tsbuse",
    "210",
    "100 (2.10)",
    "80 (3.00)",
    "400 (0.53)",
    "2.10",
    "2.00..2.20",
  ]);
});

test("it has processor time, readiness, memory and the machine as well", () => {
  const report = formatReport(RESULTS);
  expect(report).toMatch(/^4k random read, depth 32 +4\.5 +8\.5$/m);
  expect(report).toMatch(/^tsbuse +45\.0 +60\.5$/m);
  expect(report).toContain(
    "2026-01-02, 2 rounds of 0.5 s; 2 x abacus, 4 GiB, Linux 6.1; bun 1.4.4, nbdkit 1.32",
  );
});

test("the page has a line for each comparison, and none where there is nothing to compare", () => {
  const table = formatTables(RESULTS);
  expect(table).toMatch(
    /^ {6}4k random read, depth 32 +210 +4\.5 +100 +nbdkit +8\.5 +2\.10 +2\.00\.\.2\.20 +400$/m,
  );
  expect(table).not.toContain("trim");
});

test("both have the ratio to the same in C in a column, where there is that", () => {
  const report = formatReport(WITH_TWIN);
  expect(report).toMatch(/ {2}min\.\.max {2}to C$/m);
  expect(report).toMatch(/^4k random read, depth 32 .* {2}2\.10 {2}2\.00\.\.2\.20 {2}0\.76$/m);
  const table = formatTables(WITH_TWIN);
  expect(table).toMatch(/ {2}min\.\.max {2}to C {2}null {2}twin$/m);
  expect(table).toMatch(/ {2}2\.10 {2}2\.00\.\.2\.20 {2}0\.76 +400 +278$/m);
  expect(formatReport(RESULTS) + formatTables(RESULTS)).not.toContain("to C");
});

test("README has the loads of its few on a RAM disk, and nothing where a suite was not measured", () => {
  expect(formatSummary(RESULTS).split("\n")).toEqual([
    "| RAM disk, times the best other server | Unix socket | `/dev/nbdN` | `/dev/ublkbN` |",
    "| --- | --: | --: | --: |",
    "| 4k random read, depth 32 | 2.10 |  |  |",
  ]);
});

test("of a page only what stands between the markers is replaced", () => {
  const begin = "<!-- made from bench/results.json by: bun run bench --render -->";
  const page = `before\n${begin}\nold\n<!-- end -->\nafter <!-- end -->`;
  const replaced = replaceFigures(page, "new", "PAGE.md");
  expect(replaced).toBe(`before\n${begin}\n\nnew\n\n<!-- end -->\nafter <!-- end -->`);
  expect(replaceFigures(replaced, "new", "PAGE.md")).toBe(replaced);
  expect(() => replaceFigures("nothing", "new", "PAGE.md")).toThrow("PAGE.md has no place");
});
