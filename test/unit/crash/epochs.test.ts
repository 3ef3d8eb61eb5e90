/** Goal: a record with many small changes takes time in proportion to them, whatever was flushed in between. */
import { expect, test } from "bun:test";
import { epochsOf } from "../../../src/crash/epochs.ts";
import type { Change } from "../../../src/crash/history.ts";

interface Kind {
  readonly first: (index: number) => number;
  readonly length: (index: number) => number;
  /** How many changes are forced to the disk, each by itself; otherwise all of them are flushed at the end. */
  readonly forced?: number;
}

const KINDS: Readonly<Record<string, Kind>> = {
  "side by side": { first: (index) => index, length: () => 1 },
  "in the same place": { first: () => 0, length: () => 8 },
  "of many lengths": { first: (index) => index * 64, length: (index) => 2 ** (index % 8) },
  "below a long one": { first: (index) => index, length: (index) => (index === 0 ? 2 ** 30 : 1) },
  "every second one forced": { first: (index) => index, length: () => 2, forced: 2 },
};

/** How often a change was examined, in a record of that many changes. */
function looks({ first, length, forced = Infinity }: Kind, count: number): number {
  let counted = 0;
  const changes = Array.from({ length: count }, (_, index): Change => {
    const start = 2 * index;
    const isForced = index % forced === 1;
    const end = first(index) + length(index);
    return {
      kind: "write",
      get first() {
        counted += 1;
        return first(index);
      },
      end,
      fua: isForced,
      payload: 0,
      value: 1,
      start,
      done: start + 1,
      durable: isForced ? start + 1 : 2 * count,
    };
  });
  const epochs = [...epochsOf({ changes, marks: [], end: 2 * count + 1 })];
  expect(epochs.at(-1)?.pending).toEqual([]);
  return counted;
}

test.each(Object.entries(KINDS))("%s", (_, kind) => {
  // Four times as many: 16 times the work if each were compared with all others.
  expect(looks(kind, 4000) / looks(kind, 1000)).toBeLessThan(6);
});
