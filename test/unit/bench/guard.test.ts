import { expect, test } from "bun:test";
import { describeRegression, judge } from "../../../scripts/bench/guard.ts";
import type { Results } from "../../../scripts/bench/results.ts";
import { CELL, GROUP, RESULTS, SUITE, withRates } from "./sample.ts";

// The kept ratio is 2.1, and three quarters of it are 1.575.

test("a run as good as the one that is kept passes, and so does one that is a little worse", () => {
  expect(judge(RESULTS, RESULTS)).toEqual({ compared: 1, regressions: [] });
  expect(judge(RESULTS, withRates([158, 158])).regressions).toEqual([]);
});

test("one that lost more than a quarter does not, and is told by its cell", () => {
  const { regressions } = judge(RESULTS, withRates([157, 157]));
  expect(regressions).toMatchObject([{ cell: "memory/randread-4k-d32", kept: 2.1, now: 1.57 }]);
  expect(regressions.map(describeRegression)).toEqual([
    "native memory/randread-4k-d32 tsbuse: the ratio to the best peer is 1.57, and was 2.10",
  ]);
});

test("a slower machine is no regression", () => {
  const figures = Object.fromEntries(
    Object.entries(CELL.figures).map(([id, { rates }]) => [id, { rates: rates.map((rate) => rate / 10) }]),
  );
  const slower: Results = { native: { ...SUITE, groups: [{ ...GROUP, cells: [{ ...CELL, figures }] }] } };
  expect(judge(RESULTS, slower)).toEqual({ compared: 1, regressions: [] });
});

test("one of ours that is gone is a regression", () => {
  const { nbdkit = { rates: [] } } = CELL.figures;
  const cells = [{ ...CELL, figures: { nbdkit } }];
  const gone: Results = { native: { ...SUITE, groups: [{ ...GROUP, cells }] } };
  expect(judge(RESULTS, gone).regressions.map(describeRegression)).toEqual([
    "native memory/randread-4k-d32 tsbuse: the ratio to the best peer was not measured, and was 2.10",
  ]);
});

test("what only one of the runs has is not compared", () => {
  expect(judge({}, RESULTS)).toEqual({ compared: 0, regressions: [] });
  expect(judge(RESULTS, {})).toEqual({ compared: 0, regressions: [] });
  const other: Results = { native: { ...SUITE, groups: [{ ...GROUP, id: "file" }] } };
  expect(judge(RESULTS, other)).toEqual({ compared: 0, regressions: [] });
});
