/** Shortens a failing sequence as long as it still fails (delta debugging: Zeller, 1999). */
import { fewest } from "../values/fewest.ts";
import { hasRange, type Operation } from "./operation.ts";

export interface ShrinkLimits {
  readonly blockSize: number;
  /** The time limit, in milliseconds. */
  readonly milliseconds: number;
}

/** @param fails runs a candidate and returns whether it fails. */
export async function shrink(
  operations: readonly Operation[],
  fails: (candidate: readonly Operation[]) => Promise<boolean>,
  limits: ShrinkLimits,
): Promise<readonly Operation[]> {
  const deadline = performance.now() + limits.milliseconds;
  const test = async (candidate: readonly Operation[]): Promise<boolean> =>
    performance.now() < deadline && (await fails(candidate));
  let best = operations;
  for (;;) {
    const fewer = await fewest(best, test, 1);
    const smaller = await simplify(fewer, test, limits.blockSize);
    if (smaller.length === best.length && smaller.every((each, index) => each === best[index])) return best;
    best = smaller;
  }
}

type Test = (candidate: readonly Operation[]) => Promise<boolean>;

/** Replaces the remaining operations by simpler ones. */
async function simplify(
  operations: readonly Operation[],
  fails: Test,
  blockSize: number,
): Promise<readonly Operation[]> {
  let best = operations;
  for (let index = 0; index < best.length; index += 1) {
    for (;;) {
      const better = await firstFailing(best, index, fails, blockSize);
      if (better === undefined) break;
      best = better;
    }
  }
  return best;
}

async function firstFailing(
  operations: readonly Operation[],
  index: number,
  fails: Test,
  blockSize: number,
): Promise<readonly Operation[] | undefined> {
  const operation = operations[index];
  if (operation === undefined) return undefined;
  for (const simpler of simplerOnes(operation, blockSize)) {
    const candidate = operations.with(index, simpler);
    if (await fails(candidate)) return candidate;
  }
  return undefined;
}

/** One block at either end, either half, and the same without FUA. */
function* simplerOnes(operation: Operation, blockSize: number): Generator<Operation> {
  if (!hasRange(operation)) return;
  const { offset, length } = operation;
  if (length > blockSize) {
    yield { ...operation, length: blockSize };
    yield { ...operation, offset: offset + length - blockSize, length: blockSize };
  }
  if (length > 2 * blockSize) {
    const half = blockSize * Math.ceil(length / blockSize / 2);
    yield { ...operation, length: half };
    yield { ...operation, offset: offset + half, length: length - half };
    yield { ...operation, length: length - blockSize };
  }
  if ("fua" in operation && operation.fua) yield { ...operation, fua: false };
}
