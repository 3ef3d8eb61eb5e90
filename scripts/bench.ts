/**
 * Measures tsbuse beside other servers; `bun run bench --help` says how. The parts are in scripts/bench/.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { drawChart } from "./bench/chart.ts";
import { describeMachine } from "./bench/facts.ts";
import { describeRegression, judge, type Regression } from "./bench/guard.ts";
import { runKernel } from "./bench/kernel.ts";
import { buildLoad } from "./bench/load.ts";
import { ASYNC_GROUPS, NATIVE_GROUPS, runNative } from "./bench/native.ts";
import { parseOptions, type Plan, USAGE } from "./bench/options.ts";
import { formatReport, formatSummary, formatTables, replaceFigures } from "./bench/report.ts";
import {
  formatResults,
  glance,
  parseResults,
  type Results,
  type SuiteName,
  type SuiteResult,
} from "./bench/results.ts";
import { buildNbdInC, TSBUSE } from "./bench/servers.ts";
import { ensureInstalled } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";

const RESULTS = join(ROOT, "bench/results.json");
const CHART = join(ROOT, "bench/results.svg");
const SMALL_CHART = join(ROOT, "bench/glance.svg");

const REQUIREMENTS = [
  { command: "cc", package: "gcc" },
  { command: "nbdkit", package: "nbdkit" },
  { command: "qemu-nbd", package: "qemu-utils" },
  { command: "nbd-server", package: "nbd-server" },
  { command: "nbd-client", package: "nbd-client" },
  { command: "fio", package: "fio" },
] as const;

const NATIVE_VERSIONS = {
  tsbuse: [TSBUSE, "--version"],
  nbdkit: ["nbdkit", "--version"],
  "qemu-nbd": ["qemu-nbd", "--version"],
  "nbd-server": ["nbd-server", "-V"],
} as const;

async function build(): Promise<void> {
  const child = Bun.spawn([process.execPath, "run", "build"], {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if ((await child.exited) !== 0) throw new Failure("the binary cannot be built: see above");
}

async function measureSuite(name: SuiteName, plan: Plan): Promise<SuiteResult> {
  const { rounds, seconds } = plan;
  const date = new Date().toISOString().slice(0, 10);
  if (name === "kernel") return { date, rounds, seconds, ...(await runKernel(plan)), footprints: {} };
  const machine = await describeMachine(NATIVE_VERSIONS);
  const result = await runNative(name === "native" ? NATIVE_GROUPS : ASYNC_GROUPS, plan);
  return { date, rounds, seconds, machine, ...result };
}

/** @param save gets all results so far after each suite, since the next one may fail. */
async function measure(
  suites: readonly SuiteName[],
  plan: Plan,
  save: (results: Results) => void = () => {},
): Promise<Results> {
  const measured: [SuiteName, SuiteResult][] = [];
  for (const name of suites) {
    measured.push([name, await measureSuite(name, plan)]);
    save(Object.fromEntries(measured));
  }
  return Object.fromEntries(measured);
}

function readKept(): Results {
  return existsSync(RESULTS) ? parseResults(readFileSync(RESULTS, "utf8"), "bench/results.json") : {};
}

/** Writes the charts and the tables from the kept results. */
function render(): void {
  const kept = readKept();
  writeFileSync(CHART, drawChart(kept));
  writeFileSync(SMALL_CHART, drawChart(glance(kept)));
  renderPage("bench/README.md", formatTables(kept));
  renderPage("README.md", formatSummary(kept));
}

function renderPage(name: string, text: string): void {
  const path = join(ROOT, name);
  writeFileSync(path, replaceFigures(readFileSync(path, "utf8"), text, name));
}

function keep(results: Results): void {
  mkdirSync(join(ROOT, "bench"), { recursive: true });
  writeFileSync(RESULTS, formatResults({ ...readKept(), ...results }));
  render();
}

/** Returns the cells that fell below the floor twice: once proves nothing on a noisy machine. */
async function guard(suites: readonly SuiteName[], plan: Plan): Promise<readonly Regression[]> {
  const kept = readKept();
  const first = judge(kept, await measure(suites, plan));
  if (first.compared === 0) throw new Failure('nothing to compare with: run "bun run bench" first', 2);
  if (first.regressions.length === 0) return [];
  for (const one of first.regressions) console.error(`again: ${describeRegression(one)}`);
  const cells = first.regressions.map(({ cell }) => cell).join("|");
  const second = await measure(suites, { ...plan, filter: new RegExp(`^(?:${cells})$`) });
  const places = new Set(first.regressions.map(({ place }) => place));
  return judge(kept, second).regressions.filter(({ place }) => places.has(place));
}

/** Returns the exit status. */
async function main(words: readonly string[]): Promise<number> {
  const task = parseOptions(words);
  if (task.kind === "help") {
    process.stdout.write(USAGE);
    return 0;
  }
  if (task.kind === "render") {
    render();
    return 0;
  }
  await ensureInstalled(REQUIREMENTS);
  await build();
  await Promise.all([buildLoad(), buildNbdInC()]);
  if (task.kind === "guard") {
    const regressions = await guard(task.suites, task.plan);
    for (const one of regressions) console.log(describeRegression(one));
    console.log(`ratios that fell by more than a quarter: ${regressions.length}`);
    return regressions.length === 0 ? 0 : 1;
  }
  const { suites, plan, json } = task;
  const results = await measure(suites, plan, (done) => {
    if (json !== undefined) writeFileSync(json, formatResults(done));
    if (task.keep) keep(done);
  });
  console.log(formatReport(results));
  return 0;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`bench: ${error.message}`);
  process.exit(error.exitStatus);
}
