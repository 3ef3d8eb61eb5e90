/** `tsbuse crash` between its words and its exit status: what is opened and made for it, and what it says at last. */
import { closeSync, copyFileSync, existsSync, fstatSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { Bench, type Subject } from "../../crash/bench.ts";
import type { Checker, Finding } from "../../crash/checker.ts";
import { Contents } from "../../crash/contents.ts";
import { type Exploration, explore, type Found } from "../../crash/explore.ts";
import { describeWrite, type Fault } from "../../crash/fault.ts";
import { type History, historyOf } from "../../crash/history.ts";
import { messageOf, UserError } from "../../errors.ts";
import { SECTOR } from "../../record/format.ts";
import { type RecordFile, readRecord } from "../../record/reader.ts";
import { anySeed } from "../../values/random.ts";
import { log, printResult } from "../log.ts";
import { readContinued, writeContinued } from "./continued.ts";
import { Progress } from "./progress.ts";

export interface CrashOptions {
  readonly record: string;
  readonly base: string | undefined;
  readonly checker: Checker;
  /** The text of the mark that the states begin after. */
  readonly after: string | undefined;
  /** Bytes that the disk writes as a whole. */
  readonly sector: number;
  readonly states: number | undefined;
  readonly minutes: number | undefined;
  readonly seed: number | undefined;
  /** The one state to try. */
  readonly state: number | undefined;
  readonly jobs: number | undefined;
  readonly timeoutMs: number;
  readonly continued: string | undefined;
  readonly save: string;
  /** The command line that tries one state again. */
  readonly repeat: (seed: number, state: number) => string;
}

const STATES_DEFAULT = 1000;
/** Of what a checker says: lines, and characters of a line. */
const LINES_SHOWN = 12;
const LINE_SHOWN = 200;
const SHRINK_MS = 60_000;
const SAVE_INTERVAL_MS = 5000;

/** Returns the exit status. @throws UserError when something is found, or in the way. */
export async function crash(options: CrashOptions): Promise<number> {
  const record = readRecord(options.record);
  if (record.cutOffAt !== undefined)
    log.warn(`${record.path} ends in the middle of a record: it is used up to byte ${record.cutOffAt}`);
  const history = historyOf(record);
  const from = beginning(history, options.after);
  const plan = planOf(options, record);
  const base = options.base === undefined ? undefined : openBase(options.base, record);
  const directory = makeDirectory();
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, abort);
  try {
    const contents = new Contents(record.bytes, history.changes, base);
    const { checker, timeoutMs } = options;
    const subject: Subject = { history, contents, size: record.size, checker, timeoutMs, directory };
    await mustPass(subject, from, options.after, stop.signal);
    return await go(options, subject, from, plan, stop.signal);
  } finally {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, abort);
    rmSync(directory, { recursive: true, force: true });
    if (base !== undefined) closeSync(base);
  }
}

interface Plan {
  /** See Continued. */
  readonly states: string;
  readonly seed: number;
  readonly first: number;
  readonly last: number;
}

async function go(
  options: CrashOptions,
  subject: Subject,
  from: number,
  { states, seed, first, last }: Plan,
  signal: AbortSignal,
): Promise<number> {
  const { minutes, jobs = availableParallelism(), continued } = options;
  const deadline = minutes === undefined ? Infinity : performance.now() + minutes * 60_000;
  const progress = new Progress(last - first + 1, deadline);
  let saved = performance.now();
  const save = (done: number): void => {
    // One that is tried by itself says nothing of those before it.
    if (continued === undefined || options.state !== undefined) return;
    saved = performance.now();
    writeContinued(continued, { states, seed, done });
  };
  const result = await explore(subject, {
    seed,
    from,
    unit: options.sector / SECTOR,
    first,
    last,
    jobs,
    deadline,
    signal,
    shrinkTime: SHRINK_MS,
    progress: (tried, done) => {
      progress.tell(tried);
      if (performance.now() - saved > SAVE_INTERVAL_MS) save(done);
    },
  });
  // What was found is to be found again.
  save(result.found === undefined ? result.done : result.found.number - 1);
  if (result.found !== undefined) return tellFound(options, subject, result.found, seed);
  if (signal.aborted) throw new UserError(`stopped after ${result.tried} states: ${remedy(continued)}`);
  return printResult(summary(result, progress.rate(result.tried), seed));
}

function remedy(continued: string | undefined): string {
  return continued === undefined ? "with --continue FILE it could go on" : "the same command goes on";
}

function summary({ tried, isComplete }: Exploration, rate: number, seed: number): string {
  const all = isComplete ? ", and there are no others that were found" : "";
  return `no fault found: ${tried} states${all}, ${rate.toFixed(0)} a second, seed ${seed}`;
}

function tellFound(options: CrashOptions, subject: Subject, found: Found, seed: number): never {
  const { number, mark, fault, finding } = found;
  const lines: string[] = [];
  if (fault !== undefined) {
    lines.push(describeChoice(fault));
    lines.push(...fault.writes.map((write) => `  ${describeWrite(write, subject.contents.record)}`));
  }
  if (mark !== undefined) lines.push(`after the mark "${mark}"`);
  if (finding.output !== "") lines.push("the checker says:", ...endOf(finding));
  lines.push(`image: ${saveImage(subject, options.save)}`, `repeat: ${options.repeat(seed, number)}`);
  printResult(lines.join("\n"));
  const now = fault === undefined ? ", once and not again: the checker may not always say the same" : "";
  throw new UserError(
    `a power failure can do harm, state ${number} of seed ${seed}: ${finding.reason}${now}`,
  );
}

/** What the disk has of what was in flight, or not flushed. */
function describeChoice({ kind, writes, pending }: Fault): string {
  if (pending === 0) return "with all that was written: more should have been by then";
  const of = `the ${pending} changes that were not durable`;
  if (writes.length > 0)
    return `${kind === "lost" ? "without" : "with no more than"} ${writes.length} of ${of}:`;
  return kind === "lost" ? `with all of ${of}: more should have been by then` : `without any of ${of}`;
}

/** The last lines of what the checker said. */
function endOf({ output }: Finding): string[] {
  const lines = output.split("\n").filter((line) => line.trim() !== "");
  const end = lines.slice(-LINES_SHOWN).map((line) => `  ${line.slice(0, LINE_SHOWN)}`);
  return lines.length > LINES_SHOWN ? ["  …", ...end] : end;
}

function saveImage({ directory }: Subject, path: string): string {
  try {
    copyFileSync(join(directory, "bench.img"), path);
    return path;
  } catch (error) {
    return `not saved, ${messageOf(error)}`;
  }
}

/** A checker that finds fault with everything finds nothing. @throws UserError */
async function mustPass(
  subject: Subject,
  from: number,
  after: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const bench = Bench.at(subject, 0, ({ cut }) => cut >= from - 1);
  const abort = (): void => bench.check.kill();
  signal.addEventListener("abort", abort);
  try {
    const finding = from === 0 ? await bench.tryEmpty() : await bench.try(bench.epoch.pending, after);
    if (signal.aborted) throw new UserError("stopped before a state was tried: nothing is known");
    if (finding === undefined) return;
    const where = from === 0 ? "as it was before the record began" : `as it was at the mark "${after}"`;
    const advice =
      from === 0 ? "give what it was with --base, or a later beginning with --after" : "mend that first";
    throw new UserError(`${finding.reason}${quoted(finding)} on the untouched disk, ${where}: ${advice}`);
  } finally {
    signal.removeEventListener("abort", abort);
    bench.close();
  }
}

/** The last line of what the checker said. */
function quoted({ output }: Finding): string {
  const line = output.split("\n").at(-1)?.trim() ?? "";
  return line === "" ? "" : ` ("${line.slice(0, LINE_SHOWN)}")`;
}

/** The time from which on the power may fail. @throws UserError */
function beginning({ marks }: History, after: string | undefined): number {
  if (after === undefined) return 0;
  const mark = marks.find(({ text }) => text === after);
  if (mark !== undefined) return mark.time + 1;
  const texts = marks.slice(0, 5).map(({ text }) => `"${text}"`);
  const has =
    texts.length === 0 ? "it has none" : `it has ${texts.join(", ")}${marks.length > 5 ? " …" : ""}`;
  throw new UserError(`the record has no mark "${after}": ${has}`);
}

/** @throws UserError */
function planOf(options: CrashOptions, record: RecordFile): Plan {
  const { continued, state, states: wanted } = options;
  // A record that is made anew is often as long as the one before.
  const which = [
    Bun.hash(record.bytes).toString(16),
    options.sector,
    options.checker.command,
    options.after ?? "",
  ];
  const states = which.join(" ");
  const before = continued === undefined ? undefined : readContinued(continued);
  const seed = options.seed ?? before?.seed ?? anySeed();
  const others = "--check, --seed, --sector or --after";
  if (before !== undefined && (before.states !== states || before.seed !== seed)) {
    throw new UserError(
      `${continued} continues another record, or with another ${others}: give those, or another file`,
    );
  }
  if (state !== undefined) return { states, seed, first: state, last: state };
  const first = (before?.done ?? 0) + 1;
  const limit = options.minutes === undefined ? STATES_DEFAULT : Infinity;
  return { states, seed, first, last: first - 1 + (wanted ?? limit) };
}

/** @throws UserError */
function openBase(path: string, { size }: RecordFile): number {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw new UserError(`${path} cannot be opened: ${messageOf(error)}`);
  }
  const stats = fstatSync(fd);
  if (stats.isFile() && stats.size === size) return fd;
  closeSync(fd);
  if (!stats.isFile())
    throw new UserError(`${path} is not a regular file: give a copy of the disk in a file`);
  throw new UserError(
    `${path} has ${stats.size} bytes, and the record is of a disk of ${size}: give what the disk was before`,
  );
}

/** In memory, unless TMPDIR says otherwise. @throws UserError */
function makeDirectory(): string {
  const parent = process.env["TMPDIR"] ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
  try {
    return mkdtempSync(join(parent, "tsbuse-crash-"));
  } catch (error) {
    throw new UserError(
      `no directory for images in ${parent} (${messageOf(error)}): set TMPDIR to another one`,
    );
  }
}
