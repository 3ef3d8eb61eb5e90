/** Durations in buckets, eight from a power of two to the next: each is accurate to an eighth. */

/** Buckets from a power of two to the next, as a power of two. */
const STEPS_BITS = 3;
const STEPS = 2 ** STEPS_BITS;
/** Up to 2^40 nanoseconds, a good quarter of an hour. */
const OCTAVES = 40;
export const BUCKETS = OCTAVES * STEPS;

/** The exponent of 1 in a double, and where that begins in its upper half. */
const EXPONENT_OF_ONE = 1023;
const MANTISSA_BITS = 20;
const NANOSECONDS = 1e6;

const float = new Float64Array(1);
const words = new Int32Array(float.buffer);

/** The bucket of a duration in milliseconds. Takes a few nanoseconds: no logarithm, but the bits of the number. */
export function bucketOf(milliseconds: number): number {
  const nanoseconds = milliseconds * NANOSECONDS;
  if (!(nanoseconds > 1)) return 0;
  float[0] = nanoseconds;
  const bucket = ((words[1] ?? 0) >> (MANTISSA_BITS - STEPS_BITS)) - EXPONENT_OF_ONE * STEPS;
  return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/** Where a bucket ends, and the next one begins, in nanoseconds. */
export function bucketEnd(bucket: number): number {
  return 2 ** (bucket >> STEPS_BITS) * (1 + ((bucket & (STEPS - 1)) + 1) / STEPS);
}

/** The first bucket of the durations from 2^octave nanoseconds on. */
export function firstOf(octave: number): number {
  return octave * STEPS;
}

/**
 * The duration within which `part` (0 to 1) of the requests were done, in nanoseconds: the end of a bucket, an eighth
 * too long at most. 0 without requests.
 */
export function percentile(counts: ArrayLike<number>, total: number, part: number): number {
  const wanted = Math.max(1, Math.ceil(total * part));
  let seen = 0;
  for (let bucket = 0; bucket < counts.length; bucket += 1) {
    seen += counts[bucket] ?? 0;
    if (seen >= wanted) return bucketEnd(bucket);
  }
  return 0;
}
