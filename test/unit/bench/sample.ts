/** Results made by hand: two rounds, one suite. */
import type { CellResult, GroupResult, Results, SuiteResult } from "../../../scripts/bench/results.ts";

/** tsbuse at twice nbdkit, which is ahead of nbd-server; `null` is a ceiling. */
export const CELL: CellResult = {
  id: "randread-4k-d32",
  name: "4k random read, depth 32",
  figures: {
    tsbuse: { rates: [200, 220], cpu: [4, 5], p50: [10, 11], p99: [20, 22] },
    nbdkit: { rates: [100, 100], cpu: [8, 9] },
    "nbd-server": { rates: [50, 110] },
    null: { rates: [400, 400] },
  },
};

/** nbdkit alone: what is asked for is more than tsbuse can do, or a peer's privilege. */
export const PEERS_ONLY: CellResult = {
  id: "trim-128k-d32",
  name: "128k trim, depth 32",
  figures: { nbdkit: { rates: [1, 2] } },
};

export const GROUP: GroupResult = {
  id: "memory",
  title: "RAM <disk>",
  contestants: [
    { id: "tsbuse", kind: "ours" },
    { id: "nbdkit", kind: "peer" },
    { id: "nbd-server", kind: "peer" },
    { id: "null", kind: "ceiling" },
  ],
  cells: [CELL, PEERS_ONLY],
};

export const SUITE: SuiteResult = {
  date: "2026-01-02",
  rounds: 2,
  seconds: 0.5,
  machine: {
    kernel: "6.1",
    cpu: "abacus",
    cpus: 2,
    memoryMib: 4096,
    versions: { bun: "1.4.4", nbdkit: "1.32" },
  },
  groups: [GROUP],
  footprints: { tsbuse: { readyMs: [40, 50], residentMib: 60.5 } },
};

export const RESULTS: Results = { native: SUITE };

/** The sample with tsbuse's loop in C, which serves 280 and 275: tsbuse does three quarters of it. */
export const WITH_TWIN: Results = {
  native: {
    ...SUITE,
    groups: [
      {
        ...GROUP,
        contestants: [...GROUP.contestants, { id: "twin", kind: "ceiling", does: ["tsbuse"] }],
        cells: [{ ...CELL, figures: { ...CELL.figures, twin: { rates: [280, 275] } } }, PEERS_ONLY],
      },
    ],
  },
};

/** The sample with other rates of tsbuse in its first cell. */
export function withRates(rates: readonly number[]): Results {
  const figures = { ...CELL.figures, tsbuse: { rates } };
  return { native: { ...SUITE, groups: [{ ...GROUP, cells: [{ ...CELL, figures }, PEERS_ONLY] }] } };
}
