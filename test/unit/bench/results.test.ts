import { describe, expect, test } from "bun:test";
import { compareToBest, compareToC, formatResults, parseResults } from "../../../scripts/bench/results.ts";
import { CELL, GROUP, PEERS_ONLY, RESULTS, SUITE, WITH_TWIN } from "./sample.ts";

describe("the best peer", () => {
  test("is the one of the highest median, and no ceiling", () => {
    expect(compareToBest(GROUP, CELL)).toEqual([
      { ours: "tsbuse", peer: "nbdkit", ratio: { median: 2.1, min: 2, max: 2.2 } },
    ]);
  });

  test("is nobody where there is nobody to compare", () => {
    expect(compareToBest(GROUP, PEERS_ONLY)).toEqual([]);
    const { tsbuse = { rates: [] } } = CELL.figures;
    expect(compareToBest(GROUP, { ...CELL, figures: { tsbuse } })).toEqual([]);
  });
});

test("the same in C is compared with what it does, and is nobody's best peer", () => {
  const [group = GROUP] = WITH_TWIN.native?.groups ?? [];
  const [cell = CELL] = group.cells;
  const ratio = compareToC(group, cell, "tsbuse");
  expect(ratio?.min).toBeCloseTo(200 / 280);
  expect(ratio?.max).toBeCloseTo(220 / 275);
  expect(compareToBest(group, cell)).toEqual(compareToBest(GROUP, CELL));
  expect(compareToC(group, cell, "nbdkit")).toBeUndefined();
  expect(compareToC(group, PEERS_ONLY, "tsbuse")).toBeUndefined();
  expect(compareToC(GROUP, CELL, "tsbuse")).toBeUndefined();
});

describe("the file", () => {
  const text = formatResults(RESULTS);

  test("holds what was measured, and the ratios for who reads it", () => {
    expect(parseResults(text, "it")).toMatchObject(RESULTS);
    expect(JSON.parse(text).native.groups[0].cells[0].toBestPeer[0].ratio.median).toBe(2.1);
  });

  test("has each list of numbers on one line", () => expect(text).toContain('"rates": [ 200, 220 ]'));

  test("keeps what is in C", () => {
    expect(parseResults(formatResults(WITH_TWIN), "it")).toMatchObject(WITH_TWIN);
  });

  /** The file's text with one thing changed. */
  const changed = (from: string, to: string): string => {
    expect(text).toContain(from);
    return text.replace(from, to);
  };

  test.each([
    ["no JSON at all", (): string => "{", "results.json is not JSON"],
    ["a list", (): string => "[]", "it is not an object"],
    ["another suite", (): string => changed('"native"', '"naive"'), "naive: no such suite"],
    ["no date", (): string => changed('"date"', '"day"'), "native: no date"],
    ["no kernel", (): string => changed('"kernel"', '"os"'), "no kernel of the machine"],
    [
      "a contestant of another kind",
      (): string => changed('"peer"', '"pier"'),
      "a contestant of unknown kind",
    ],
    ["a rate that is no number", (): string => changed("200, 220", '200, "220"'), "tsbuse has no rates"],
    ["a round too few", (): string => changed("200, 220", "200"), "tsbuse does not have 2 rates"],
    ["figures of nobody", (): string => changed('"tsbuse": {\n', '"other": {\n'), "other is no contestant"],
    ["half a footprint", (): string => changed('"residentMib"', '"memory"'), "the footprint of tsbuse"],
  ])("is refused with %s", (_, make, message) => {
    expect(() => parseResults(make(), "results.json")).toThrow(message);
  });

  test("may hold some suites only", () => {
    expect(parseResults("{}", "it")).toEqual({});
    expect(Object.keys(parseResults(formatResults({ kernel: SUITE }), "it"))).toEqual(["kernel"]);
  });
});
