import { describe, expect, test } from "bun:test";
import { formatTable, median, rotate, spreadOfRatios } from "../../../scripts/bench/statistics.ts";

describe("median", () => {
  test.each([
    [[5], 5],
    [[9, 1, 5], 5],
    [[10, 1, 2, 100], 6],
  ])("of %p is %p", (values, expected) => expect(median(values)).toBe(expected));

  test("of nothing is no number", () => expect(median([])).toBeNaN());

  test("compares numbers, not their digits", () => expect(median([100, 9, 20])).toBe(20));
});

test("ratios are those of the pairs, not of the medians", () => {
  // The medians are 2 and 2; the pairs say 0.5, 1 and 3.
  expect(spreadOfRatios([1, 2, 6], [2, 2, 2])).toEqual({ median: 1, min: 0.5, max: 3 });
});

test("each round begins with the next one, and leaves nobody out", () => {
  const orders = [0, 1, 2, 3].map((round) => rotate(["a", "b", "c"], round).join(""));
  expect(orders).toEqual(["abc", "bca", "cab", "abc"]);
  expect(rotate([], 3)).toEqual([]);
});

test("a table's columns end where their widest text ends", () => {
  const rows = [
    ["", "rate"],
    ["read", "10"],
    ["random write", "2"],
  ];
  expect(formatTable(rows)).toBe("              rate\nread            10\nrandom write     2");
});
