/** A checkpoint or a snapshot as a fixed state of the disk: which objects of the log it needs. */
import type { LogPlace } from "./format.ts";
import type { StateRecord, Turn } from "./records.ts";

/**
 * Encodes segment numbers as `[gap, length, gap, length, …]`: how many numbers are left out, and how many follow that
 * are included. Sequential writes give few, long runs.
 */
export function runsOf(numbers: Iterable<number>): number[] {
  const runs: number[] = [];
  let end = 0;
  let first = 0;
  for (const number of Float64Array.from(numbers).toSorted()) {
    if (runs.length === 0 || number > end) {
      runs.push(number - end, 0);
      first = number;
    }
    runs[runs.length - 1] = number - first + 1;
    end = number + 1;
  }
  return runs;
}

export class KeptState {
  readonly #turns: readonly Turn[];
  /** The first number of each run, and the number after its last. */
  readonly #bounds: Float64Array;

  constructor({ turns, segments }: Pick<StateRecord, "turns" | "segments">) {
    this.#turns = turns;
    let sum = 0;
    this.#bounds = Float64Array.from(segments, (step) => (sum += step));
  }

  needs({ number, writer }: LogPlace): boolean {
    return (
      isWithin(this.#bounds, number) &&
      this.#turns.findLast(({ first }) => first <= number)?.writer === writer
    );
  }

  /** The numbers of its segments and of those in `others`. */
  joinedTo(others: KeptNumbers): KeptNumbers {
    return new KeptNumbers(union(this.#bounds, others.bounds));
  }
}

/** Numbers of segments that any of several states needs. Memory depends on the number of segments, not of states. */
export class KeptNumbers {
  constructor(readonly bounds = new Float64Array(0)) {}

  has(number: number): boolean {
    return isWithin(this.bounds, number);
  }
}

function isWithin(bounds: Float64Array, number: number): boolean {
  let [low, high] = [0, bounds.length];
  // Counts the bounds that are not above the number.
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((bounds[middle] ?? Infinity) <= number) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}

function union(one: Float64Array, other: Float64Array): Float64Array<ArrayBuffer> {
  const bounds = new Float64Array(one.length + other.length);
  let [first, second, length] = [0, 0, 0];
  while (first < one.length || second < other.length) {
    const wasWithin = first % 2 === 1 || second % 2 === 1;
    const bound = Math.min(one[first] ?? Infinity, other[second] ?? Infinity);
    if (one[first] === bound) first += 1;
    if (other[second] === bound) second += 1;
    const isNowWithin = first % 2 === 1 || second % 2 === 1;
    if (isNowWithin !== wasWithin) bounds[length++] = bound;
  }
  return bounds.slice(0, length);
}
