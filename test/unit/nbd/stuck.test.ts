/** Goal: a device that answers nothing is distinguished from an idle one, a busy one and a slow one. */
import { expect, test } from "bun:test";
import { standInForFile } from "../../support/stand-in.ts";

let attributes: (file: string) => string = () => "";
await standInForFile({
  "libc/sysfs.ts": { readAttribute: (path: string) => attributes(path.slice("/sys/block/nbd0/".length)) },
});
const { isStuck } = await import("../../../src/nbd/node/stuck.ts");

/** As the kernel writes it: of 17 numbers those at 0, 4, 11 and 15 count answers, and the others change as well. */
let looks = 0;
const stat = (reads: number, flushes: number): string =>
  `   ${reads} 0 8 ${(looks += 1)} 5 0 40 9 1 ${looks} ${looks} 0 0 0 0 ${flushes} 0`;

test.each<[string, string, () => string, boolean]>([
  ["is idle", "       0        0", () => stat(7, 0), false],
  ["answers reads", "       0        1", () => stat(looks, 0), false],
  ["answers flushes", "       3        0", () => stat(7, looks), false],
  ["answers nothing", "       0        1", () => stat(7, 2), true],
])("a device that %s", (_, inFlight, counts, expected) => {
  attributes = (file) => (file === "inflight" ? inFlight : counts());
  expect(isStuck("nbd0", 50)).toBe(expected);
});
