/** Goal: durations are counted to an eighth, and the figures made from them are that accurate. */
import { expect, test } from "bun:test";
import { BUCKETS, bucketEnd, bucketOf, percentile } from "../../src/values/log-buckets.ts";
import { chooseSeed, Random } from "../support/random.ts";

test("a duration is within its bucket, and an eighth wide at most", () => {
  const random = new Random(chooseSeed("log buckets"));
  for (let round = 0; round < 10_000; round += 1) {
    const nanoseconds = 2 ** (random.fraction() * 39) + 1;
    const end = bucketEnd(bucketOf(nanoseconds / 1e6));
    // The unit is converted twice.
    expect(nanoseconds).toBeLessThan(end * (1 + 1e-9));
    expect(nanoseconds).toBeGreaterThan((end / 1.125) * (1 - 1e-9));
  }
});

test.each([
  [0, 0],
  [-1, 0],
  [Number.NaN, 0],
  [1e-6, 0],
  [Number.POSITIVE_INFINITY, BUCKETS - 1],
  [1e9, BUCKETS - 1],
])("%p ms is in bucket %d", (milliseconds, bucket) => {
  expect(bucketOf(milliseconds)).toBe(bucket);
});

test.each([
  [0.5, 10],
  [0.98, 10],
  [0.99, 1000],
  [1, 1000],
])("of 98 short and 2 long ones the part %p took %d us, or an eighth more", (part, microseconds) => {
  const counts = new Float64Array(BUCKETS);
  counts[bucketOf(0.01)] = 98;
  counts[bucketOf(1)] = 2;
  const within = percentile(counts, 100, part) / 1000;
  expect(within).toBeGreaterThanOrEqual(microseconds);
  expect(within).toBeLessThanOrEqual(microseconds * 1.125);
});
