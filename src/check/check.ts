/** Tries to break a device, and shows the shortest way to do so. */
import type { Dispatch } from "../dispatch.ts";
import { anySeed, Random } from "../values/random.ts";
import { Generator } from "./generate.ts";
import type { Operation } from "./operation.ts";
import { type MakeDevice, type Outcome, run, type RunOptions } from "./run.ts";
import { shrink } from "./shrink.ts";

export type { MakeDevice } from "./run.ts";

export interface CheckOptions {
  /** A whole number from 0 to 2^32 - 1: the same seed gives the same operations. Default: random. */
  readonly seed?: number | undefined;
  /** How many operations to try. Default 1000. */
  readonly ops?: number | undefined;
  /** The device keeps flushed data when it is closed and made anew. Default false. */
  readonly persistent?: boolean | undefined;
  /** Drops the device now and then, as the death of its process does: flushed data must survive. Default false. */
  readonly crash?: boolean | undefined;
  /** How many requests an asynchronous device gets at once. Default 16. */
  readonly queueDepth?: number | undefined;
  /** Milliseconds after which a request counts as hung. Default 10,000. */
  readonly requestTimeout?: number | undefined;
  /** Milliseconds for making a failing sequence shorter. Default 20,000. */
  readonly shrinkTime?: number | undefined;
}

export interface CheckReport {
  readonly seed: number;
  readonly ops: number;
  /** Undefined if no fault was found. */
  readonly failure: CheckFailure | undefined;
}

export interface CheckFailure {
  /** One line; steps are counted from 1. */
  readonly message: string;
  /** The shortest sequence found that fails, a line for each step. */
  readonly steps: readonly string[];
}

/**
 * Makes the device and requests everything that a transport could: random ranges and those at the edges, neighbours and
 * overlaps, trims and zeroes, FUA and flush, many at once if it is asynchronous, and again after it was closed. It
 * compares the answers with the expected ones and watches the use of buffers. If it finds a fault, it repeats the
 * operations, on a new device each time, to find a short sequence that shows it.
 *
 * The contents of the device are overwritten.
 *
 * @param make called for every run. A device in a file may find the file as the previous run left it.
 * @example
 *     const report = await checkDevice(() => new MyDisk(2 ** 26), { seed: 1 });
 *     expect(report.failure).toBeUndefined();
 */
export async function checkDevice(make: MakeDevice, options: CheckOptions = {}): Promise<CheckReport> {
  const seed = options.seed ?? anySeed();
  const ops = Math.max(1, options.ops ?? 1000);
  const runOptions: RunOptions = {
    depth: options.queueDepth ?? 16,
    timeoutMs: options.requestTimeout ?? 10_000,
    persistent: options.persistent ?? options.crash ?? false,
    sweep: true,
  };
  let blockSize = 0;
  const plan = (shape: Dispatch): readonly Operation[] => {
    ({ blockSize } = shape);
    return new Generator(new Random(seed), shape, options.crash).operations(ops);
  };
  const outcome = await run(make, plan, runOptions);
  if (outcome.failure === undefined) return { seed, ops, failure: undefined };
  // Many runs will hang as this one did: waiting as long for each would take too long.
  const timeoutMs = outcome.hung ? Math.ceil(runOptions.timeoutMs / 10) : runOptions.timeoutMs;
  const limits = { blockSize, milliseconds: options.shrinkTime ?? 20_000 };
  return {
    seed,
    ops,
    failure: await shortest(make, outcome, { ...runOptions, timeoutMs, sweep: false }, limits),
  };
}

async function shortest(
  make: MakeDevice,
  outcome: Outcome,
  options: RunOptions,
  limits: Parameters<typeof shrink>[2],
): Promise<CheckFailure> {
  let best = outcome;
  // A fault that depends on the order in which promises settle does not show each time.
  const attempts = outcome.asynchronous ? 3 : 1;
  const fails = async (candidate: readonly Operation[]): Promise<boolean> => {
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const again = await run(make, () => candidate, options);
      if (again.failure === undefined) continue;
      best = again;
      return true;
    }
    return false;
  };
  if (outcome.operations.length > 0) await shrink(outcome.operations, fails, limits);
  return { message: best.failure ?? "", steps: best.steps };
}
