import { expect, test } from "bun:test";
import { chooseCells, MEMORY_CELLS } from "../../../scripts/bench/cells.ts";
import { runCourse } from "../../../scripts/bench/rounds.ts";

const CELLS = MEMORY_CELLS.slice(0, 2);
const CONTESTANTS = [
  { id: "a", kind: "ours" },
  { id: "b", kind: "peer" },
  { id: "c", kind: "peer" },
] as const;

test("contestants take turns within a cell, each round begins with another, and the first is not counted", async () => {
  const order: string[] = [];
  const results = await runCourse({
    group: "group",
    cells: CELLS,
    contestants: CONTESTANTS,
    rounds: 2,
    measure: async (contestants, cell, round) => {
      order.push(...contestants.map(({ id }) => `${cell.depth}${cell.mode} ${round}${id}`));
      const sample = { rate: round === 0 ? 1e9 : round, cpu: round * 2 };
      return new Map(contestants.map(({ id }) => [id, sample]));
    },
  });
  const turns = ["0a", "0b", "0c", "1b", "1c", "1a", "2c", "2a", "2b"];
  const modes = ["1randread", "1randwrite"];
  expect(order).toEqual(modes.flatMap((mode) => turns.map((turn) => `${mode} ${turn}`)));
  expect(results.map(({ figures }) => figures["a"])).toEqual([
    { rates: [1, 2], cpu: [2, 4] },
    { rates: [1, 2], cpu: [2, 4] },
  ]);
});

test("who cannot do what a cell asks for has no figures", async () => {
  const [result] = await runCourse({
    group: "group",
    cells: CELLS.slice(0, 1),
    contestants: CONTESTANTS,
    rounds: 1,
    measure: async () =>
      new Map([
        ["a", { rate: 1 }],
        ["c", { rate: 1 }],
      ]),
  });
  expect(Object.keys(result?.figures ?? {}).toSorted()).toEqual(["a", "c"]);
});

test("a filter sees the group and the cell; a quick run has few cells, of every kind", () => {
  const all = { quick: false, filter: undefined };
  expect(chooseCells(MEMORY_CELLS, "memory", all)).toEqual(MEMORY_CELLS);
  expect(chooseCells(MEMORY_CELLS, "memory", { ...all, filter: /^file\// })).toEqual([]);
  expect(
    chooseCells(MEMORY_CELLS, "memory", { ...all, filter: /memory\/trim/ }).map(({ mode }) => mode),
  ).toEqual(["trim"]);
  const quick = chooseCells(MEMORY_CELLS, "memory", { ...all, quick: true });
  expect(quick.length).toBe(5);
  expect(new Set(MEMORY_CELLS.map(({ id }) => id)).size).toBe(MEMORY_CELLS.length);
  expect(new Set(quick.map(({ depth }) => depth))).toEqual(new Set([1, 32, 8]));
});
