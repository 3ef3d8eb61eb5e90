/** The test suites as tasks: each runs in a process of its own and counts its tests. */
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Log, Task } from "./tasks.ts";
import { STATUS_VM_FAILED } from "./vm-run.ts";

export const ROOT = join(import.meta.dir, "../..");
/** Reports and logs. */
export const RESULTS = join(ROOT, "dist/test-results");

export interface Counts {
  passed: number;
  failed: number;
  /** The names of skipped tests; each says why. */
  readonly skipped: string[];
  /** What the log says about the failed tests. */
  readonly failures: readonly string[];
}

export type TestTask = Task<Counts>;

/** How long one test may take, in milliseconds: the virtual machine has no hardware support. */
const TEST_LIMIT_MS = 180_000;

/** A command that passes when it exits 0. */
export function commandTask(name: string, command: readonly string[]): TestTask {
  return {
    name,
    run: async (log) => {
      const ok = (await spawn(command, log)) === 0;
      log.say(`${ok ? "(pass)" : "(fail)"} ${name}`);
      return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [], failures: failuresIn(log.text()) };
    },
  };
}

/** The tests below test/NAME, in order: by itself, bun's runner takes them in the order of the disk. */
export function testsTask(name: string): TestTask {
  const folder = `test/${name}`;
  return { name, run: async (log) => countsOf(folder, await runRunner(folder, testFiles(folder), log), log) };
}

/** The paths of the files below a folder, in order. */
function testFiles(folder: string): string[] {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => name.endsWith(".test.ts"))
    .toSorted()
    .map((name) => `${folder}/${name}`);
}

/**
 * The tests of a folder in the virtual machine, each file in a machine of its own: so a file does not meet what another
 * left behind in the kernel, and when a kernel dies, the log shows under which tests. If a machine dies, another one is
 * started once, because the emulated processor may be at fault; the log says so, and why. A test that failed before
 * that has failed.
 * @param vm the command that runs another one in the virtual machine.
 */
export function testsInVm(folder: string, vm: readonly string[]): TestTask[] {
  return testFiles(folder).map((path) => ({
    name: path,
    run: async (log) => {
      let end = await runRunner(path, [path], log, vm);
      if (end.status === STATUS_VM_FAILED && !/^\(fail\)/m.test(log.text())) {
        log.say(`${path}: the virtual machine died, see above; once more in another one`);
        end = await runRunner(path, [path], log, vm);
      }
      return countsOf(path, end, log);
    },
  }));
}

/** Adds up. */
export function sumCounts(all: readonly Counts[]): Counts {
  return {
    passed: all.reduce((total, each) => total + each.passed, 0),
    failed: all.reduce((total, each) => total + each.failed, 0),
    skipped: all.flatMap((each) => each.skipped),
    failures: all.flatMap((each) => each.failures),
  };
}

/** Lines in an excerpt: the failure's own, and the end of the output before it. */
const EXCERPT_LINES = 40;

/** For each failed test in a log, its line and what precedes it, back to the result of the test before. */
export function failuresIn(log: string): string[] {
  const failures: string[] = [];
  const seen = new Set<string>();
  let lines: string[] = [];
  for (const line of log.split("\n")) {
    lines.push(line);
    // The runner names all that failed once more at its end.
    const isNew = line.startsWith("(fail)") && !seen.has(line);
    seen.add(line);
    if (isNew) failures.push(lines.slice(-EXCERPT_LINES).join("\n"));
    if (/^\((?:pass|fail|skip)\)/.test(line)) lines = [];
  }
  return failures;
}

/** How bun's runner ended. */
interface RunnerEnd {
  readonly status: number;
  /** The tests in its report, which it writes at its end. */
  readonly counts: Counts;
}

/** @param name of the report. */
async function runRunner(
  name: string,
  files: readonly string[],
  log: Log,
  prefix: readonly string[] = [],
): Promise<RunnerEnd> {
  mkdirSync(RESULTS, { recursive: true });
  const report = join(RESULTS, `${name.replaceAll("/", "-")}.xml`);
  rmSync(report, { force: true });
  const command = [
    ...prefix,
    process.execPath,
    "test",
    ...files.map((path) => `./${path}`),
    // A global object for each file: what one leaves behind, perhaps a worker, does not affect the next.
    "--isolate",
    `--timeout=${TEST_LIMIT_MS}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  const status = await spawn(command, log);
  const counts = existsSync(report) ? countReport(await Bun.file(report).text()) : countReport("");
  return { status, counts };
}

function countsOf(path: string, { status, counts }: RunnerEnd, log: Log): Counts {
  // A runner that failed without a failed test did not run all tests; nor did one that reports none.
  const told = counts.passed + counts.skipped.length;
  if (counts.failed > 0 || (status === 0 && told > 0)) return { ...counts, failures: failuresIn(log.text()) };
  log.say(`(fail) ${path}: the test runner ended with status ${status}`);
  return { ...counts, failed: 1, failures: failuresIn(log.text()) };
}

/** Counts the <testcase> elements of a JUnit report: with a <failure> or <error>, with <skipped/>, or passed. */
export function countReport(xml: string): Counts {
  const counts: Counts = { passed: 0, failed: 0, skipped: [], failures: [] };
  for (const [, attributes = "", body = ""] of xml.matchAll(
    /<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    if (/<(failure|error)\b/.test(body)) counts.failed += 1;
    else if (/<skipped\b/.test(body))
      counts.skipped.push(/\bname="([^"]*)"/.exec(attributes)?.[1] ?? "unnamed");
    else counts.passed += 1;
  }
  return counts;
}

async function spawn(command: readonly string[], log: Log): Promise<number> {
  const child = Bun.spawn([...command], { cwd: ROOT, stdio: ["ignore", log.fd, log.fd] });
  return child.exited;
}
