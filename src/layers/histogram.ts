/** How long requests took, kept in little memory: each duration to a tenth. */

/** Steps between a power of two and the next. */
const STEPS = 8;
/** Up to 2^40 nanoseconds, a good quarter of an hour. */
const BUCKETS = 40 * STEPS;

export class Histogram {
  readonly #buckets = new Float64Array(BUCKETS);
  #count = 0;
  #max = 0;

  add(microseconds: number): void {
    const nanoseconds = Math.max(1, microseconds * 1000);
    const bucket = Math.min(BUCKETS - 1, Math.floor(Math.log2(nanoseconds) * STEPS));
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    this.#count += 1;
    this.#max = Math.max(this.#max, microseconds);
  }

  /** The longest, in microseconds; 0 when there was none. */
  get max(): number {
    return this.#max;
  }

  /** Microseconds within which `part` of the requests, from 0 to 1, were done, rounded up by a tenth at most. */
  percentile(part: number): number {
    const wanted = Math.ceil(this.#count * part);
    let seen = 0;
    for (const [bucket, count] of this.#buckets.entries()) {
      seen += count;
      if (seen >= wanted && seen > 0) return Math.min(this.#max, 2 ** ((bucket + 1) / STEPS) / 1000);
    }
    return this.#max;
  }
}
