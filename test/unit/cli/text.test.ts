/** Values as text. */
import { expect, test } from "bun:test";
import { formatSize, shellWord } from "../../../src/cli/text.ts";
import { execute } from "./tsbuse.ts";

test.each([
  [0, "0 B"],
  [512, "512 B"],
  [1023, "1023 B"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [102_400, "100 KiB"],
  [536_870_912, "512 MiB"],
  [1_610_612_736, "1.5 GiB"],
  [10_000_000_000, "9.3 GiB"],
  [1_099_511_627_776, "1 TiB"],
  [9_007_199_254_740_991, "8.0 PiB"],
])("formatSize(%p)", (bytes, text) => {
  expect(formatSize(bytes)).toBe(text);
});

test.each(["plain", "a b", "it's", "$HOME", "", "ünïcode", "--x=1,2", "a\nb", "`id`", "\\"])(
  "a shell takes %j as one word, and as it is",
  (text) => {
    expect(execute(["/bin/sh", "-c", `printf '<%s>' ${shellWord(text)}`]).stdout).toBe(`<${text}>`);
  },
);
