/** A state of the disk that stays as it is, a checkpoint's or a snapshot's: which objects of the log it needs. */
import type { LogPlace } from "./format.ts";
import type { StateRecord, Turn } from "./records.ts";

/**
 * Numbers of segments as `[gap, length, gap, length, …]`: how many numbers are left out, and how many follow that are
 * in it. Who writes in sequence has few and long ones.
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
  /** The first number of each run, and the one after its last. */
  readonly #bounds: Float64Array;

  constructor({ turns, segments }: Pick<StateRecord, "turns" | "segments">) {
    this.#turns = turns;
    let sum = 0;
    this.#bounds = Float64Array.from(segments, (step) => (sum += step));
  }

  needs({ number, writer }: LogPlace): boolean {
    return this.#has(number) && this.#turns.findLast(({ first }) => first <= number)?.writer === writer;
  }

  #has(number: number): boolean {
    let [low, high] = [0, this.#bounds.length];
    // How many bounds are not above the number.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#bounds[middle] ?? Infinity) <= number) low = middle + 1;
      else high = middle;
    }
    return low % 2 === 1;
  }
}
