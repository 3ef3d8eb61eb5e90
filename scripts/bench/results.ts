/** The results of a run, as bench/results.json keeps them. */
import { Failure } from "../lib/failure.ts";
import { median, type Spread, spreadOfRatios } from "./statistics.ts";

/** The suites in the order of the tables. */
export const SUITES = ["native", "kernel", "async"] as const;
export type SuiteName = (typeof SUITES)[number];

/** We compare with peers. A ceiling is no peer: it shows the limit of the kernel or of the load generator. */
export const KINDS = ["ours", "peer", "ceiling"] as const;
export type Kind = (typeof KINDS)[number];

export interface Contestant {
  readonly id: string;
  readonly kind: Kind;
  /** For a ceiling that is a C version of one of ours: which of ours. */
  readonly does?: readonly string[];
}

/** The part of a contestant that the results keep. */
export function contestantOf({ id, kind, does }: Contestant): Contestant {
  return { id, kind, ...(does !== undefined && { does }) };
}

/** One contestant in one cell: a number for each round, in order. */
export interface Figures {
  /** Requests per second. */
  readonly rates: readonly number[];
  /** The server's processor time per request in microseconds, user and system; absent where the kernel serves. */
  readonly cpu?: readonly number[];
  /** The median and the 99th percentile of the latency, in microseconds. */
  readonly p50?: readonly number[];
  readonly p99?: readonly number[];
}

export interface CellResult {
  readonly id: string;
  readonly name: string;
  /** By contestant, without those that do not support the cell's requests. */
  readonly figures: Readonly<Record<string, Figures>>;
}

/** Contestants that were measured in turn, cell by cell. */
export interface GroupResult {
  readonly id: string;
  readonly title: string;
  readonly contestants: readonly Contestant[];
  readonly cells: readonly CellResult[];
}

/** What a server needs besides processor time. */
export interface Footprint {
  /** Milliseconds from exec to the end of the first handshake, for each round. */
  readonly readyMs: readonly number[];
  /** Peak resident memory in MiB without the stored data, after 1 MiB requests at depth 128. */
  readonly residentMib: number;
}

export interface Machine {
  readonly kernel: string;
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryMib: number;
  /** The versions of tsbuse, bun and the peers. */
  readonly versions: Readonly<Record<string, string>>;
}

export interface SuiteResult {
  readonly date: string;
  /** Counted rounds, and counted seconds of each measurement. */
  readonly rounds: number;
  readonly seconds: number;
  readonly machine: Machine;
  readonly groups: readonly GroupResult[];
  readonly footprints: Readonly<Record<string, Footprint>>;
}

export type Results = { readonly [suite in SuiteName]?: SuiteResult };

/** The loads that README shows: one request at a time, many small ones, and large ones. */
const GLANCE: ReadonlySet<string> = new Set([
  "randread-4k-d1",
  "randread-4k-d32",
  "randwrite-4k-d32",
  "read-128k-d8",
  "write-128k-d8",
]);

/** The part of the results that README shows: a few loads on a RAM disk, on a Unix socket. */
export function glance({ native }: Results): Results {
  const group = native?.groups.find(({ id }) => id === "memory");
  if (native === undefined || group === undefined) return {};
  const cells = group.cells.filter(({ id }) => GLANCE.has(id));
  return { native: { ...native, groups: [{ ...group, cells }] } };
}

/** One of ours compared with the best peer of a cell. */
export interface Comparison {
  readonly ours: string;
  readonly peer: string;
  readonly ratio: Spread;
}

/** One for each of ours that was measured; empty without a measured peer. The best peer has the highest median. */
export function compareToBest(group: GroupResult, result: CellResult): Comparison[] {
  const best = contestantsIn(group, result, "peer").toSorted(
    (a, b) => medianRate(result, b) - medianRate(result, a),
  )[0];
  if (best === undefined) return [];
  return contestantsIn(group, result, "ours").map((ours) => ({
    ours,
    peer: best,
    ratio: compare(result, ours, best),
  }));
}

/** One of ours compared with the same server in C; undefined where that was not measured. */
export function compareToC(group: GroupResult, result: CellResult, ours: string): Spread | undefined {
  const twin = group.contestants.find(({ id, does }) => does?.includes(ours) && id in result.figures);
  return twin === undefined ? undefined : compare(result, ours, twin.id);
}

/** Whether the group has a C version of one of ours. */
export function hasTwins({ contestants }: GroupResult): boolean {
  return contestants.some(({ does }) => does !== undefined);
}

/** The contestants of a kind that have figures in the cell. */
export function contestantsIn(group: GroupResult, result: CellResult, kind: Kind): string[] {
  return group.contestants.filter((one) => one.kind === kind && one.id in result.figures).map(({ id }) => id);
}

/** The rate of one contestant over that of another; both must have figures. */
export function compare(result: CellResult, over: string, under: string): Spread {
  return spreadOfRatios(result.figures[over]?.rates ?? [], result.figures[under]?.rates ?? []);
}

function medianRate(result: CellResult, id: string): number {
  return median(result.figures[id]?.rates ?? []);
}

/** The text of results.json. Its ratios are for human readers; `parseResults` computes them anew. */
export function formatResults(results: Results): string {
  const withRatios = Object.fromEntries(
    SUITES.flatMap((name) => {
      const suite = results[name];
      if (suite === undefined) return [];
      const groups = suite.groups.map((group) => ({
        ...group,
        cells: group.cells.map((result) => ({ ...result, toBestPeer: compareToBest(group, result) })),
      }));
      return [[name, { ...suite, groups }]];
    }),
  );
  // Each list of numbers on one line, because people read the file, too.
  const text = JSON.stringify(withRatios, null, 2);
  return `${text.replaceAll(/\[[\s\d.,e+-]+\]/g, (list) => list.replaceAll(/\s+/g, " "))}\n`;
}

/** @throws Failure that names the invalid part. */
export function parseResults(text: string, source: string): Results {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Failure(`${source} is not JSON: run "bun run bench" to make it anew`);
  }
  const fault = faultIn(value);
  if (fault !== undefined) throw new Failure(`${source}: ${fault}; run "bun run bench" to make it anew`);
  return value as Results;
}

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumbers(value: unknown): boolean {
  return Array.isArray(value) && value.every((one) => typeof one === "number" && one >= 0);
}

/** The first thing that is wrong, with its place. */
function faultIn(value: unknown): string | undefined {
  if (!isFields(value)) return "it is not an object";
  for (const [name, suite] of Object.entries(value)) {
    const fault = SUITES.some((known) => known === name) ? faultInSuite(suite) : "no such suite";
    if (fault !== undefined) return `${name}: ${fault}`;
  }
  return undefined;
}

function faultInSuite(suite: unknown): string | undefined {
  if (!isFields(suite)) return "not an object";
  if (typeof suite["date"] !== "string") return "no date";
  if (typeof suite["rounds"] !== "number" || typeof suite["seconds"] !== "number")
    return "no rounds or seconds";
  const { machine, groups, footprints } = suite;
  if (!isFields(machine) || typeof machine["cpus"] !== "number" || !isFields(machine["versions"]))
    return "no facts of the machine";
  for (const fact of ["kernel", "cpu"])
    if (typeof machine[fact] !== "string") return `no ${fact} of the machine`;
  if (!isFields(footprints)) return "no footprints";
  for (const [id, one] of Object.entries(footprints)) {
    if (!isFields(one) || !isNumbers(one["readyMs"]) || typeof one["residentMib"] !== "number")
      return `the footprint of ${id} is incomplete`;
  }
  if (!Array.isArray(groups)) return "no groups";
  for (const group of groups) {
    const fault = faultInGroup(group, suite["rounds"]);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function faultInGroup(group: unknown, rounds: number): string | undefined {
  if (!isFields(group) || typeof group["id"] !== "string" || typeof group["title"] !== "string")
    return "a group without id or title";
  const { contestants, cells } = group;
  if (!Array.isArray(contestants) || !Array.isArray(cells)) return `${group["id"]}: no contestants or cells`;
  const known = new Set<unknown>();
  for (const one of contestants) {
    if (!isFields(one) || !KINDS.some((kind) => kind === one["kind"]))
      return `${group["id"]}: a contestant of unknown kind`;
    if (one["does"] !== undefined && !Array.isArray(one["does"]))
      return `${group["id"]}: a contestant whose "does" is no list`;
    known.add(one["id"]);
  }
  for (const result of cells) {
    if (!isFields(result) || typeof result["id"] !== "string" || typeof result["name"] !== "string")
      return `${group["id"]}: a cell without id or name`;
    if (!isFields(result["figures"])) return `${group["id"]}/${result["id"]}: no figures`;
    for (const [id, figures] of Object.entries(result["figures"])) {
      const place = `${group["id"]}/${result["id"]}: ${id}`;
      if (!known.has(id)) return `${place} is no contestant of the group`;
      if (!isFields(figures) || !isNumbers(figures["rates"])) return `${place} has no rates`;
      if (Array.isArray(figures["rates"]) && figures["rates"].length !== rounds)
        return `${place} does not have ${rounds} rates`;
    }
  }
  return undefined;
}
