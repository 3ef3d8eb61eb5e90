/** A repeated option: its values are distinguished from all other words. */
import { expect, test } from "bun:test";
import { byName } from "../../../../src/cli/options/argument.ts";
import { SERVING } from "../../../../src/cli/options/serving.ts";
import { joinRepeated, splitRepeated } from "../../../../src/cli/options/words.ts";

test.each([
  [["--layer", "a", "4M", "--layer=b"], ["4M"], ["a", "b"]],
  [["4M", "--read-only", "--layer", "a=b:c"], ["4M", "--read-only"], ["a=b:c"]],
  [["--run", "--layer", "4M", "--", "--layer", "x"], ["--run", "--layer", "4M", "--", "--layer", "x"], []],
  [["4M"], ["4M"], []],
])("%p", (words, others, values) => {
  const joined = joinRepeated(byName(SERVING), words);
  const option = joined.find((word) => word.startsWith("--layer="));
  expect(joined.filter((word) => word !== option)).toEqual(others);
  expect(option === undefined ? [] : splitRepeated(option.slice("--layer=".length))).toEqual(values);
});
