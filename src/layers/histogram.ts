/** How long requests took, in little memory: each duration is accurate to an eighth. */
import { BUCKETS, bucketOf, percentile } from "../values/log-buckets.ts";

export class Histogram {
  readonly #buckets = new Float64Array(BUCKETS);
  #count = 0;
  #max = 0;

  add(microseconds: number): void {
    const bucket = bucketOf(microseconds / 1000);
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    this.#count += 1;
    this.#max = Math.max(this.#max, microseconds);
  }

  /** The longest duration, in microseconds; 0 without requests. */
  get max(): number {
    return this.#max;
  }

  /** The microseconds within which `part` (0 to 1) of the requests were done, rounded up by an eighth at most. */
  percentile(part: number): number {
    return Math.min(this.#max, percentile(this.#buckets, this.#count, part) / 1000);
  }
}
