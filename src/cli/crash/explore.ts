/** `tsbuse crash` from its arguments to its exit status: opens and creates what it needs, and reports the result. */
import { closeSync, existsSync, fstatSync, openSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { Bench } from "../../crash/bench.ts";
import type { Checker } from "../../crash/checker.ts";
import { Contents } from "../../crash/contents.ts";
import { RunDirectory } from "../../crash/directory.ts";
import { type Exploration, explore } from "../../crash/explore.ts";
import { type History, historyOf } from "../../crash/history.ts";
import type { Subject } from "../../crash/place.ts";
import { messageOf, UserError } from "../../errors.ts";
import { SECTOR } from "../../record/format.ts";
import { type RecordFile, readRecord, whyNotWhole } from "../../record/reader.ts";
import { anySeed } from "../../values/random.ts";
import { log, printResult } from "../log.ts";
import { ContinuedFile } from "./continued.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { quoted, tellFound } from "./found.ts";
import { Progress } from "./progress.ts";

export interface CrashOptions {
  readonly record: string;
  readonly base: string | undefined;
  readonly checker: Checker;
  /** The states begin after the mark with this text. */
  readonly after: string | undefined;
  /** The bytes that the disk writes atomically. */
  readonly sector: number;
  readonly states: number | undefined;
  readonly minutes: number | undefined;
  readonly seed: number | undefined;
  /** The one state to try. */
  readonly state: number | undefined;
  readonly jobs: number | undefined;
  /** `auto`, `nbd` or `ublk`: the checker gets a node as well. */
  readonly device: string | undefined;
  readonly timeoutMs: number;
  readonly continued: string | undefined;
  readonly save: string;
  /** The command line that tries one state again. */
  readonly repeat: (seed: number, state: number) => string;
}

const STATES_DEFAULT = 1000;
const SHRINK_MS = 60_000;
const SAVE_INTERVAL_MS = 5000;

/** Returns the exit status: 0, or 1 when something is found. @throws UserError when it cannot run. */
export async function crash(options: CrashOptions): Promise<number> {
  const record = readRecord(options.record);
  if (record.cutOffAt !== undefined)
    log.warn(`${record.path} ends in the middle of a record: it is used up to byte ${record.cutOffAt}`);
  const missing = whyNotWhole(record);
  if (missing !== undefined) throw new UserError(missing);
  const history = historyOf(record);
  const from = beginning(history, options.after);
  const base = options.base === undefined ? undefined : openBase(options.base, record);
  using progress = new ContinuedFile(options.state === undefined ? options.continued : undefined);
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  for (const signal of SIGNALS) process.on(signal, abort);
  try {
    const plan = planOf(options, fingerprint(options, record, base), progress);
    // In memory, unless TMPDIR says otherwise.
    const parent = process.env["TMPDIR"] ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
    using directory = RunDirectory.make(parent);
    const { checker, timeoutMs, device } = options;
    const subject: Subject = {
      history,
      contents: new Contents(record.bytes, history.changes, base),
      size: record.size,
      checker,
      timeoutMs,
      directory: directory.path,
      node: device === undefined ? undefined : { target: device, log: (line) => log.warn(line) },
    };
    await mustPass(subject, from, options.after, stop.signal);
    return await go(options, subject, from, plan, stop.signal);
  } finally {
    for (const signal of SIGNALS) process.off(signal, abort);
    if (base !== undefined) closeSync(base);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

interface Plan {
  readonly seed: number;
  readonly first: number;
  readonly last: number;
  /** Saves that all states up to this one were tried. */
  readonly save: (done: number) => void;
}

async function go(
  options: CrashOptions,
  subject: Subject,
  from: number,
  { seed, first, last, save }: Plan,
  signal: AbortSignal,
): Promise<number> {
  const { minutes, jobs = availableParallelism(), continued } = options;
  const deadline = minutes === undefined ? Infinity : performance.now() + minutes * 60_000;
  const progress = new Progress(last - first + 1, deadline);
  let saved = performance.now();
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
      if (performance.now() - saved < SAVE_INTERVAL_MS) return;
      saved = performance.now();
      save(done);
    },
  });
  // A later run must find this fault again.
  save(result.done);
  if (result.trouble !== undefined && !signal.aborted) throw result.trouble;
  // If the run was stopped before a second look confirmed the fault, the next run finds it.
  const isKnown = !signal.aborted || result.found?.fault !== undefined;
  if (result.found !== undefined && isKnown) return tellFound(options, subject, result.found, seed);
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

/** A checker that fails on the untouched disk proves nothing. @throws UserError */
async function mustPass(
  subject: Subject,
  from: number,
  after: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const bench = await Bench.at(subject, 0, ({ cut }) => cut >= from - 1);
  const abort = (): void => bench.place.kill();
  signal.addEventListener("abort", abort);
  try {
    const finding = from === 0 ? await bench.tryEmpty() : await bench.try(bench.epoch.pending, after);
    if (signal.aborted) throw new UserError("stopped before a state was tried: nothing is known");
    if (finding === undefined) return;
    const where = from === 0 ? "as it was before the record began" : `as it was at the mark "${after}"`;
    const advice =
      from === 0
        ? "give its earlier contents with --base, or a later beginning with --after"
        : "fix that first";
    throw new UserError(`${finding.reason}${quoted(finding)} on the untouched disk, ${where}: ${advice}`);
  } finally {
    signal.removeEventListener("abort", abort);
    await bench.close();
  }
}

/** The first time at which the power may fail. @throws UserError */
function beginning({ marks }: History, after: string | undefined): number {
  if (after === undefined) return 0;
  const mark = marks.find(({ text }) => text === after);
  if (mark !== undefined) return mark.time + 1;
  const texts = marks.slice(0, 5).map(({ text }) => `"${text}"`);
  const has =
    texts.length === 0 ? "it has none" : `it has ${texts.join(", ")}${marks.length > 5 ? " …" : ""}`;
  throw new UserError(`the record has no mark "${after}": ${has}`);
}

/** A hash of everything that the states and their numbers depend on, except the seed. @throws UserError */
function fingerprint(options: CrashOptions, record: RecordFile, base: number | undefined): string {
  if (options.continued === undefined) return "";
  const { sector, checker, after = "", device = "" } = options;
  return fingerprintOf(record.bytes, base, [String(sector), checker.command, after, device]);
}

/** @throws UserError */
function planOf(options: CrashOptions, states: string, file: ContinuedFile): Plan {
  const { state, states: wanted } = options;
  const { before } = file;
  const seed = options.seed ?? before?.seed ?? anySeed();
  if (before !== undefined && (before.states !== states || before.seed !== seed)) {
    throw new UserError(
      `${file.path} continues another record, or with another --base, --check, --seed, --sector, --after or --device: give those, or another file`,
    );
  }
  const save = (done: number): void => file.write({ states, seed, done });
  if (state !== undefined) return { seed, first: state, last: state, save };
  const first = (before?.done ?? 0) + 1;
  const limit = options.minutes === undefined ? STATES_DEFAULT : Infinity;
  return { seed, first, last: first - 1 + (wanted ?? limit), save };
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
