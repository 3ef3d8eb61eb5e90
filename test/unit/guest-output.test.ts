/** Goal: the output shown for a kernel that crashed begins with its first report. */
import { expect, test } from "bun:test";
import { troubleLines } from "../../scripts/lib/guest-output.ts";

const QUIET = ["[ 1.0] booted", "[ 2.0] nbd0: Attempted send on invalid socket", "[ 3.0] done"];

test.each([
  "[ 4.0] ------------[ cut here ]------------",
  "[ 4.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
  "[ 4.0] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI",
])("from the first report on: %s", (report) => {
  const after = ["[ 4.1] Call Trace:", "[ 4.2] BUG: another one", "[ 4.3] Kernel panic - not syncing"];
  const console = [...QUIET, report, ...after, ""].join("\r\n");
  expect(troubleLines(console, 10)).toEqual([report, ...after]);
  expect(troubleLines(console, 2)).toEqual([report, "[ 4.1] Call Trace:"]);
});

test("the last lines where there is no report", () => {
  expect(troubleLines(QUIET.join("\n"), 2)).toEqual(QUIET.slice(1));
});
