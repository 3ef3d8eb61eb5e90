/** Sizes and counts as people write them. */
import { describe, expect, test } from "bun:test";
import {
  count,
  parseBlocks,
  parseDuration,
  parsePositiveSize,
  parseSize,
} from "../../../../src/cli/options/values.ts";
import { UsageError } from "../../../../src/cli/usage-error.ts";

describe("parseSize", () => {
  test.each([
    ["0", 0],
    ["1", 1],
    ["4096", 4096],
    ["+512", 512],
    ["007", 7],
    ["5B", 5],
    ["1K", 1024],
    ["1k", 1024],
    ["64KiB", 65_536],
    ["64kib", 65_536],
    ["64KB", 65_536],
    ["0.5K", 512],
    ["512M", 536_870_912],
    ["512MiB", 536_870_912],
    ["1.5G", 1_610_612_736],
    ["1.5 GiB", 1_610_612_736],
    [" 2M ", 2_097_152],
    ["1T", 1_099_511_627_776],
    ["7P", 7_881_299_347_898_368],
    ["9007199254740991", 9_007_199_254_740_991],
  ])("%p", (text, bytes) => {
    expect(parseSize(text, "SIZE")).toBe(bytes);
  });

  test.each([
    ["", "is not a size"],
    ["K", "is not a size"],
    ["M512", "is not a size"],
    ["512 M B", "is not a size"],
    ["512i", "is not a size"],
    ["512Bi", "is not a size"],
    ["1E", "is not a size"],
    ["1.", "is not a size"],
    [".5K", "is not a size"],
    ["1,5G", "is not a size"],
    ["1_000", "is not a size"],
    ["1e3", "is not a size"],
    ["0x200", "is not a size"],
    ["Infinity", "is not a size"],
    ["NaN", "is not a size"],
    ["--1", "is not a size"],
    ["1K1", "is not a size"],
    ["١", "is not a size"],
    ["-1", "is negative"],
    ["-0.5K", "is negative"],
    ["1.3", "is not a whole number of bytes"],
    ["1.3K", "is not a whole number of bytes"],
    ["8P", "is not a whole number of bytes that can be counted"],
    ["9007199254740992", "is not a whole number of bytes that can be counted"],
    ["99999999999999999999", "is not a whole number of bytes that can be counted"],
  ])("%p is refused", (text, cause) => {
    expect(() => parseSize(text, "--offset")).toThrow(UsageError);
    expect(() => parseSize(text, "--offset")).toThrow(cause);
    expect(() => parseSize(text, "--offset")).toThrow("--offset");
  });
});

test("parsePositiveSize refuses zero", () => {
  expect(parsePositiveSize("1", "SIZE")).toBe(1);
  for (const zero of ["0", "0G", "0.0", "-0"]) {
    expect(() => parsePositiveSize(zero, "SIZE")).toThrow("SIZE is 0: give a size above zero");
  }
});

test("parseBlocks refuses what is not whole blocks, and says what would be", () => {
  expect(parseBlocks("4K", "SIZE", 512)).toBe(4096);
  expect(parseBlocks("4K", "SIZE", 4096)).toBe(4096);
  expect(() => parseBlocks("1", "SIZE", 512)).toThrow("give 512");
  expect(() => parseBlocks("513", "SIZE", 512)).toThrow("give 1024");
  expect(() => parseBlocks("6K", "SIZE", 4096)).toThrow("give 8192");
});

describe("count", () => {
  test.each([
    ["0", 0],
    ["7", 7],
    ["10", 10],
    ["007", 7],
  ])("%p", (text, number) => {
    expect(count(0, 10)(text, "--timeout")).toBe(number);
  });

  test.each(["", " 7", "-1", "+1", "1.5", "11", "1e1", "0x1", "99999999999999999999"])(
    "%p is refused",
    (text) => {
      expect(() => count(0, 10)(text, "--timeout")).toThrow(UsageError);
      expect(() => count(0, 10)(text, "--timeout")).toThrow("from 0 to 10");
    },
  );
});

test("parseDuration takes a number with a unit, and 0", () => {
  const texts = ["0", "90s", "30m", "24h", "7d"];
  expect(texts.map((text) => parseDuration(text, "--keep"))).toEqual([
    0, 90_000, 1_800_000, 86_400_000, 604_800_000,
  ]);
  for (const text of ["", "5", "h", "-1h", "1.5h", "1y", "24 h"])
    expect(() => parseDuration(text, "--keep")).toThrow(`--keep "${text}" is not a time: give`);
});
