/** `tsbuse replay`: repeats the recorded requests on a target, and measures how long they take. */
import { applyLayers } from "../../layers/layer.ts";
import { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { readRecord, type RecordFile } from "../../record/reader.ts";
import { kind } from "../../record/format.ts";
import { BufferPool } from "../../replay/buffers.ts";
import { mustFit, type PlannedRequest, planOf } from "../../replay/plan.ts";
import { type Clock, replay, type ReplayResult } from "../../replay/run.ts";
import { resultText } from "../../replay/text.ts";
import { log, printResult } from "../log.ts";
import type { LayerStack } from "../options/layers.ts";
import { openTarget } from "./target.ts";

export interface ReplayArguments {
  readonly file: string;
  readonly target: string;
  readonly argument: string | undefined;
  readonly words: readonly string[];
  readonly fast: boolean;
  readonly depth: number;
  readonly reads: boolean;
  readonly destroy: boolean;
  readonly stack: LayerStack;
}

/** A timer may be this late, in milliseconds. The rest of a wait polls, turn by turn of the event loop. */
const TIMER_MS = 2;

const CLOCK: Clock = {
  now: () => performance.now(),
  sleep: (milliseconds) => (milliseconds > TIMER_MS ? Bun.sleep(milliseconds - TIMER_MS) : nextTurn()),
};

function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}

/** Returns the exit status. @throws UserError */
export async function replayRecord(args: ReplayArguments): Promise<number> {
  const { stack, target } = args;
  const record = readRecord(args.file);
  const plan = planOf(record, (command) => !args.reads || command === "read");
  sayWhatIsMissing(record, plan);
  if (plan.length === 0) throw new UserError(`${args.file} has no such requests: there is nothing to repeat`);
  const changes = plan.some(({ command }) => command !== "read" && command !== "flush");
  const wanted = { ...args, isSpared: stack.sparesDevice, changes, size: record.size };
  const device = applyLayers(await openTarget(wanted), stack.layers);
  const buffers = new BufferPool();
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, abort);
  try {
    await device.prepare?.();
    const dispatch = new Dispatch(device, { log: (line) => log.warn(line) });
    mustFit(plan, { name: target, size: dispatch.size, blockSize: dispatch.blockSize });
    const { fast, depth } = args;
    const result = await replay(plan, dispatch, buffers, { fast, depth, clock: CLOCK, stop: stop.signal });
    return print(result, plan, target, fast);
  } finally {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, abort);
    buffers.close();
    await device.close?.();
  }
}

function sayWhatIsMissing({ path, cutOffAt, events }: RecordFile, plan: readonly PlannedRequest[]): void {
  if (cutOffAt !== undefined)
    log.warn(`${path} ends in the middle of a record: it is used up to byte ${cutOffAt}`);
  const lost = events.reduce((sum, event) => sum + (event.kind === kind.lost ? event.length : 0), 0);
  if (lost > 0) log.warn(`${path} misses ${lost} requests, which were not traced`);
  const bare = plan.filter(({ command, payload }) => command === "write" && payload === undefined).length;
  if (bare > 0)
    log.warn(`the bytes of ${bare} writes are not in ${path}: sectors are filled with their numbers`);
}

function print(result: ReplayResult, plan: readonly PlannedRequest[], target: string, fast: boolean): number {
  const done = result.commands.reduce((sum, { requests }) => sum + requests, 0);
  if (done + result.leftOut < plan.length)
    log.warn(`interrupted: ${plan.length - done - result.leftOut} requests were not begun`);
  if (result.leftOut > 0)
    log.warn(`${target} does not know the commands of ${result.leftOut} requests: they were left out`);
  const status = printResult(resultText(result, fast));
  const failed = result.commands.reduce(
    (sum, { errors, errorsThen }) => sum + Math.max(0, errors - errorsThen),
    0,
  );
  if (failed > 0)
    throw new UserError(
      `${failed} more requests failed than did then: see what the target says of its errors`,
    );
  return status;
}
