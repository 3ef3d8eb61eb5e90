/** Results as text: the tables on the terminal and in bench/README.md, and the small one in README.md. */
import { Failure } from "../lib/failure.ts";
import {
  type CellResult,
  compare,
  compareToBest,
  compareToC,
  type Comparison,
  contestantsIn,
  glance,
  type GroupResult,
  hasTwins,
  type Results,
  type SuiteName,
  type SuiteResult,
  SUITES,
} from "./results.ts";
import { formatTable, median, type Spread } from "./statistics.ts";

const SUITE_TITLES: Readonly<Record<SuiteName, string>> = {
  native: "Unix socket",
  kernel: "kernel driver",
  async: "promises, Unix socket",
};

/** Everything that was measured. */
export function formatReport(results: Results): string {
  return SUITES.flatMap((name) => {
    const suite = results[name];
    if (suite === undefined) return [];
    const groups = suite.groups.flatMap((group) => [
      `${SUITE_TITLES[name]}: ${group.title}`,
      formatTable(rateRows(group)),
      ...cpuTable(group),
    ]);
    return [describeSuite(suite), ...groups, ...footprintTable(suite)];
  }).join("\n\n");
}

/** The date, the effort, the machine and the versions. */
export function describeSuite({ date, rounds, seconds, machine }: SuiteResult): string {
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  const effort = `${rounds} round${rounds === 1 ? "" : "s"} of ${seconds} s`;
  const memory = `${Math.round(machine.memoryMib / 1024)} GiB`;
  return `${date}, ${effort}; ${machine.cpus} x ${machine.cpu}, ${memory}, Linux ${machine.kernel}; ${versions.join(", ")}`;
}

/** A row for each of ours in a cell: every rate, our ratio to each, and the best peer. */
function rateRows(group: GroupResult): string[][] {
  const idsOf = (kind: "peer" | "ceiling"): string[] =>
    group.contestants.filter((one) => one.kind === kind).map(({ id }) => id);
  const others = [...idsOf("peer"), ...idsOf("ceiling")];
  const toC = hasTwins(group);
  const rows = [
    ["requests per second", "", "rate", ...others, "to best peer", "min..max", ...(toC ? ["to C"] : [])],
  ];
  for (const result of group.cells) {
    const comparisons = compareToBest(group, result);
    for (const ours of contestantsIn(group, result, "ours")) {
      const ratio = comparisons.find((one) => one.ours === ours)?.ratio;
      rows.push([
        result.name,
        ours,
        rateOf(result, ours),
        ...others.map((other) => rateBeside(result, ours, other)),
        ratio?.median.toFixed(2) ?? "-",
        ratio === undefined ? "-" : formatRange(ratio),
        ...(toC ? [ratioToC(group, result, ours)] : []),
      ]);
    }
  }
  return rows;
}

function ratioToC(group: GroupResult, result: CellResult, ours: string): string {
  return compareToC(group, result, ours)?.median.toFixed(2) ?? "";
}

function rateBeside(result: CellResult, ours: string, other: string): string {
  if (!(other in result.figures)) return "-";
  return `${rateOf(result, other)} (${compare(result, ours, other).median.toFixed(2)})`;
}

function rateOf(result: CellResult, id: string): string {
  return median(result.figures[id]?.rates ?? []).toFixed(0);
}

/** Microseconds. */
function cpuOf({ figures }: CellResult, id: string): string {
  const { cpu } = figures[id] ?? {};
  return cpu === undefined ? "-" : median(cpu).toFixed(1);
}

function formatRange({ min, max }: Spread): string {
  return `${min.toFixed(2)}..${max.toFixed(2)}`;
}

function cpuTable({ contestants, cells }: GroupResult): string[] {
  const servers = contestants
    .map(({ id }) => id)
    .filter((id) => cells.some(({ figures }) => figures[id]?.cpu !== undefined));
  if (servers.length === 0) return [];
  const rows = cells.map((result) => [result.name, ...servers.map((id) => cpuOf(result, id))]);
  return [formatTable([["server's CPU per request, µs", ...servers], ...rows])];
}

function footprintTable({ footprints }: SuiteResult): string[] {
  const rows = Object.entries(footprints).map(([id, { readyMs, residentMib }]) => [
    id,
    median(readyMs).toFixed(1),
    residentMib.toFixed(1),
  ]);
  return rows.length === 0
    ? []
    : [formatTable([["", "exec to ready, ms", "memory beyond the data, MiB"], ...rows])];
}

/** The tables of bench/README.md. */
export function formatTables(results: Results): string {
  return SUITES.flatMap((name) => {
    const suite = results[name];
    return suite === undefined ? [] : tablesOf(SUITE_TITLES[name], suite);
  }).join("\n\n");
}

const TABLE_HEAD = ["requests per second", "tsbuse", "CPU", "best peer", "", "CPU", "ratio", "min..max"];

function tablesOf(title: string, suite: SuiteResult): string[] {
  const all = suite.groups.flatMap(({ contestants }) => contestants);
  const ceilings = [...new Set(all.filter(({ kind }) => kind === "ceiling").map(({ id }) => id))];
  const toC = suite.groups.some(hasTwins);
  const groups = suite.groups
    .map((group) => ({ title: group.title, rows: tableRows(group, ceilings, toC) }))
    .filter(({ rows }) => rows.length > 0);
  const [head = "", ...lines] = formatTable([
    [...TABLE_HEAD, ...(toC ? ["to C"] : []), ...ceilings],
    ...groups.flatMap(({ rows }) => rows),
  ]).split("\n");
  // A group's title has a line of its own: as a cell it would widen the first column.
  const table = groups.map(({ title: heading, rows }) =>
    [heading, lines.splice(0, rows.length).join("\n")].join("\n"),
  );
  const parts = [[head, ...table].join("\n"), ...footprintTable(suite)];
  return [`${title}. ${describeSuite(suite)}; CPU is the server's, in µs per request:`, ...parts.map(indent)];
}

/** @param toC whether the table has a column for the ratio to the same server in C. */
function tableRows(group: GroupResult, ceilings: readonly string[], toC: boolean): string[][] {
  return group.cells.flatMap((result) => {
    const rates = ceilings.map((id) => (id in result.figures ? rateOf(result, id) : ""));
    return compareToBest(group, result).map((one) =>
      comparisonRow(group, result, one).concat(toC ? ratioToC(group, result, one.ours) : [], rates),
    );
  });
}

function comparisonRow(group: GroupResult, result: CellResult, { ours, peer, ratio }: Comparison): string[] {
  const several = contestantsIn(group, result, "ours").length > 1;
  return [
    `  ${result.name}${several ? ` (${ours})` : ""}`,
    rateOf(result, ours),
    cpuOf(result, ours),
    rateOf(result, peer),
    peer,
    cpuOf(result, peer),
    ratio.median.toFixed(2),
    formatRange(ratio),
  ];
}

function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, "    ");
}

/** The columns of README's small table: a contestant of a suite. */
const COLUMNS = [
  { title: "Unix socket", suite: "native", ours: "tsbuse" },
  { title: "`/dev/nbdN`", suite: "kernel", ours: "tsbuse" },
  { title: "`/dev/ublkbN`", suite: "kernel", ours: "tsbuse-ublk" },
] as const satisfies readonly { title: string; suite: SuiteName; ours: string }[];

/** README's table, in Markdown: for a few loads on a RAM disk, our rate as a multiple of the best peer's. */
export function formatSummary(results: Results): string {
  const [first] = COLUMNS;
  const cells = memoryOf(glance(results), first.suite)?.cells ?? [];
  const rows = cells.map(({ id, name }) => [name].concat(COLUMNS.map((one) => ratioIn(results, one, id))));
  const head = ["RAM disk, times the best other server", ...COLUMNS.map(({ title }) => title)];
  return [head, head.map((_, index) => (index === 0 ? "---" : "--:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");
}

function memoryOf(results: Results, suite: SuiteName): GroupResult | undefined {
  return results[suite]?.groups.find(({ id }) => id === "memory");
}

function ratioIn(results: Results, { suite, ours }: (typeof COLUMNS)[number], cell: string): string {
  const group = memoryOf(results, suite);
  const result = group?.cells.find(({ id }) => id === cell);
  if (group === undefined || result === undefined) return "";
  return (
    compareToBest(group, result)
      .find((one) => one.ours === ours)
      ?.ratio.median.toFixed(2) ?? ""
  );
}

const BEGIN = "<!-- made from bench/results.json by: bun run bench --render -->";
const END = "<!-- end -->";

/** The page with `text` between the markers. @param name of the page. @throws Failure when it has no markers. */
export function replaceFigures(page: string, text: string, name: string): string {
  return replaceBetween(page, BEGIN, text, name);
}

/** Likewise, behind another marker. @throws Failure */
export function replaceBetween(page: string, marker: string, text: string, name: string): string {
  const begin = page.indexOf(marker);
  const end = page.indexOf(END, begin);
  if (begin < 0 || end < 0)
    throw new Failure(`${name} has no place for the figures: put in "${marker}" and "${END}"`);
  return `${page.slice(0, begin + marker.length)}\n\n${text}\n\n${page.slice(end)}`;
}
