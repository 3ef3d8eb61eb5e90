/** The test suites: each is run as a process of its own and counted. */
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { STATUS_VM_FAILED } from "./vm-run.ts";

export const ROOT = join(import.meta.dir, "../..");
const RESULTS = join(ROOT, "dist/test-results");

export interface Counts {
  passed: number;
  failed: number;
  /** The names of the tests that were skipped; each says why. */
  readonly skipped: string[];
}

/** How long one test may take, in milliseconds: the virtual machine has no hardware support. */
const TEST_LIMIT_MS = 180_000;

/** Virtual machines at once: what a test waits for leaves a processor to another one. */
const MACHINES = Math.min(2, availableParallelism());

/** A check that is one command: it passes when that exits 0. */
export async function runCheck(name: string, command: readonly string[]): Promise<Counts> {
  const status = await spawn(command);
  console.log(`${status === 0 ? "(pass)" : "(fail)"} ${name}`);
  return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: [] };
}

/** The tests below a folder, by bun's runner, which left to itself takes them in the order of the disk. */
export async function runTests(folder: string): Promise<Counts> {
  return countsOf(folder, await runRunner(folder, testFiles(folder)));
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
 * The tests of a folder in the virtual machine, each file in one of its own: what a test leaves behind in the kernel is
 * not the next file's, and when a kernel dies, it is plain under which tests. A machine that dies is started once more,
 * since the emulation of a processor is not beyond doubt; it says so, and why. What failed before it died has failed.
 * @param vm the command that runs another one in the virtual machine.
 */
export async function runTestsInVm(folder: string, vm: readonly string[]): Promise<Counts> {
  const all: Counts[] = [];
  const waiting = testFiles(folder);
  const lane = async (): Promise<void> => {
    for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
      let end = await runRunner(path, [path], vm);
      if (end.status === STATUS_VM_FAILED && !end.sawFailure) {
        console.log(`${path}: the virtual machine died, see above; once more in another one`);
        end = await runRunner(path, [path], vm);
      }
      all.push(countsOf(path, end));
    }
  };
  await Promise.all(Array.from({ length: MACHINES }, lane));
  return sumCounts(all);
}

/** Adds up. */
export function sumCounts(all: readonly Counts[]): Counts {
  return {
    passed: all.reduce((total, each) => total + each.passed, 0),
    failed: all.reduce((total, each) => total + each.failed, 0),
    skipped: all.flatMap((each) => each.skipped),
  };
}

/** How bun's runner ended. */
interface RunnerEnd {
  readonly status: number;
  /** Of the tests that it has reported on, which it does at its end. */
  readonly counts: Counts;
  /** It has said of a test that it failed. */
  readonly sawFailure: boolean;
}

/** @param name of the report. */
async function runRunner(
  name: string,
  files: readonly string[],
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
    // Each file in a global object of its own: what one leaves behind, a worker perhaps, is not the next one's.
    "--isolate",
    `--timeout=${TEST_LIMIT_MS}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  // Only a machine takes with it all that could keep a pipe open, and there are several at once.
  const output = prefix.length > 0 ? "pipe" : "inherit";
  const child = Bun.spawn(command, { cwd: ROOT, stdio: ["ignore", output, output] });
  const [said, told] = await Promise.all([textOf(child.stdout), textOf(child.stderr)]);
  process.stdout.write(said);
  process.stderr.write(told);
  const sawFailure = /^\(fail\)/m.test(told);
  const status = await child.exited;
  const counts = existsSync(report)
    ? countReport(await Bun.file(report).text())
    : { passed: 0, failed: 0, skipped: [] };
  return { status, counts, sawFailure };
}

/** All of it at once, so that it is not mixed with another's. */
async function textOf(stream: ReadableStream<Uint8Array> | undefined | number): Promise<string> {
  return stream instanceof ReadableStream ? new Response(stream).text() : "";
}

function countsOf(path: string, { status, counts }: RunnerEnd): Counts {
  // A runner that failed without a failed test did not run them all, nor did one that has nothing to tell.
  const told = counts.passed + counts.skipped.length;
  if (counts.failed > 0 || (status === 0 && told > 0)) return counts;
  console.log(`(fail) ${path}: the test runner ended with status ${status}`);
  return { ...counts, failed: 1 };
}

/** Counts the <testcase> elements of a JUnit report: with a <failure> or <error>, with <skipped/>, or passed. */
export function countReport(xml: string): Counts {
  const counts: Counts = { passed: 0, failed: 0, skipped: [] };
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

async function spawn(command: readonly string[]): Promise<number> {
  const child = Bun.spawn([...command], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
  return child.exited;
}
