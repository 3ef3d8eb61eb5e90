/** The loads that a device gets: the cells of the tables. */

export type Mode = "randread" | "randwrite" | "read" | "write" | "mixed" | "trim";

/** One shape of load. */
export interface Cell {
  /** `randread-4k-d32`: --filter matches it, and the guard names it. */
  readonly id: string;
  readonly name: string;
  readonly mode: Mode;
  /** Bytes of each request. */
  readonly block: number;
  /** Requests in flight. */
  readonly depth: number;
}

/** Mixed is seven random reads to three random writes. */
const MODE_NAMES: Readonly<Record<Mode, string>> = {
  randread: "random read",
  randwrite: "random write",
  read: "read",
  write: "write",
  mixed: "mixed 70/30",
  trim: "trim",
};

const KIB = 1024;

function blockName(block: number): string {
  return block < 1024 * KIB ? `${block / KIB}k` : `${block / (1024 * KIB)}M`;
}

/** The cell of a mode, a block size in KiB, and a depth. */
export function makeCell(mode: Mode, blockKib: number, depth: number): Cell {
  const block = blockKib * KIB;
  return {
    id: `${mode}-${blockName(block)}-d${depth}`,
    name: `${blockName(block)} ${MODE_NAMES[mode]}, depth ${depth}`,
    mode,
    block,
    depth,
  };
}

/** A device in memory gets every load. Trim comes last, because it discards what the others read. */
export const MEMORY_CELLS: readonly Cell[] = [
  ...[1, 8, 32, 128].flatMap((depth) => [makeCell("randread", 4, depth), makeCell("randwrite", 4, depth)]),
  makeCell("mixed", 4, 32),
  makeCell("read", 128, 8),
  makeCell("write", 128, 8),
  makeCell("read", 1024, 8),
  makeCell("write", 1024, 8),
  makeCell("trim", 128, 32),
];

export const FILE_CELLS: readonly Cell[] = [
  ...[1, 32].flatMap((depth) => [makeCell("randread", 4, depth), makeCell("randwrite", 4, depth)]),
  makeCell("mixed", 4, 32),
  makeCell("read", 128, 8),
  makeCell("write", 128, 8),
];

export const DIRECT_CELLS: readonly Cell[] = [
  makeCell("randread", 4, 1),
  makeCell("randread", 4, 32),
  makeCell("randwrite", 4, 32),
];

export const PROMISE_CELLS: readonly Cell[] = [makeCell("randread", 4, 32), makeCell("randwrite", 4, 32)];

/** The cells of a quick run and of the guard. */
const QUICK: ReadonlySet<string> = new Set([
  "randread-4k-d1",
  "randread-4k-d32",
  "randwrite-4k-d32",
  "read-128k-d8",
  "write-128k-d8",
]);

/** The cells that a run measures; `filter` matches against `group/id`. */
export function chooseCells(
  cells: readonly Cell[],
  group: string,
  choice: { readonly quick: boolean; readonly filter: RegExp | undefined },
): readonly Cell[] {
  return cells.filter(
    ({ id }) => (!choice.quick || QUICK.has(id)) && (choice.filter?.test(`${group}/${id}`) ?? true),
  );
}
