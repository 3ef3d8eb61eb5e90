/** What a device did between two readings of its statistics. Times are in microseconds here. */
import type { Statistics } from "../../control/statistics.ts";
import {
  BYTES,
  COUNT,
  difference,
  errorCells,
  FAILED,
  heatCells,
  type Kind,
  kindCells,
  KINDS,
  QUEUED,
  QUEUED_BUCKETS,
  QUEUED_MAX,
  SERVED,
  SERVED_BUCKETS,
  SERVED_MAX,
} from "../../queues/ledger.ts";
import { errnoName } from "../../uapi/errno.ts";
import { BUCKETS, percentile } from "../../values/log-buckets.ts";

/** At most an eighth too long. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface KindRates {
  readonly requests: number;
  readonly errors: number;
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly queue: Latency;
  readonly device: Latency;
}

export interface LayerRate {
  readonly name: string;
  readonly requests: number;
  /** The average for a request. */
  readonly microseconds: number;
}

export interface Rates {
  /** Between the two readings, by the clock of the serving process. */
  readonly seconds: number;
  readonly iops: number;
  readonly readBytesPerSecond: number;
  readonly writtenBytesPerSecond: number;
  /** The average number of requests in the queue and in the device. */
  readonly depth: number;
  /** Only the kinds of request that occurred. */
  readonly kinds: Readonly<Partial<Record<Kind, KindRates>>>;
  /** How many requests failed, by the name of the errno. */
  readonly errors: Readonly<Record<string, number>>;
  readonly layers: readonly LayerRate[];
  /** Bytes in each of 64 parts of the disk. */
  readonly heat: { readonly read: readonly number[]; readonly write: readonly number[] };
}

const MICROSECONDS = 1000;
const NANOSECONDS_PER_MICROSECOND = 1000;
/** The smallest time between two readings, in milliseconds. */
const LEAST_MS = 1;

/** @param earlier of the same process. */
export function ratesOf(later: Statistics, earlier: Statistics): Rates {
  const cells = difference(later.cells, earlier.cells);
  const ms = Math.max(LEAST_MS, later.atMs - earlier.atMs);
  const seconds = ms / 1000;
  const kinds: Partial<Record<Kind, KindRates>> = {};
  const total = { requests: 0, read: 0, written: 0, ms: 0 };
  for (const [index, kind] of KINDS.entries()) {
    const own = kindCells(cells, index);
    const [count, bytes] = [own[COUNT] ?? 0, own[BYTES] ?? 0];
    total.requests += count;
    total.ms += (own[QUEUED] ?? 0) + (own[SERVED] ?? 0);
    if (kind === "read") total.read += bytes;
    else if (kind === "write" || kind === "fua") total.written += bytes;
    if (count > 0) kinds[kind] = kindRates(own, seconds);
  }
  return {
    seconds,
    iops: total.requests / seconds,
    readBytesPerSecond: total.read / seconds,
    writtenBytesPerSecond: total.written / seconds,
    depth: total.ms / ms,
    kinds,
    errors: errorsOf(cells),
    layers: layerRates(later, earlier),
    heat: { read: [...heatCells(cells, "read")], write: [...heatCells(cells, "write")] },
  };
}

/** How many requests failed, by the name of the errno; "other" for errors without one. */
export function errorsOf(cells: Float64Array): Record<string, number> {
  const named: Record<string, number> = {};
  for (const [number, count] of errorCells(cells).entries())
    if (count > 0) named[number === 0 ? "other" : errnoName(number)] = count;
  return named;
}

function kindRates(cells: Float64Array, seconds: number): KindRates {
  const requests = cells[COUNT] ?? 0;
  return {
    requests,
    errors: cells[FAILED] ?? 0,
    iops: requests / seconds,
    bytesPerSecond: (cells[BYTES] ?? 0) / seconds,
    queue: latency(
      cells.subarray(QUEUED_BUCKETS, QUEUED_BUCKETS + BUCKETS),
      requests,
      cells[QUEUED_MAX] ?? 0,
    ),
    device: latency(
      cells.subarray(SERVED_BUCKETS, SERVED_BUCKETS + BUCKETS),
      requests,
      cells[SERVED_MAX] ?? 0,
    ),
  };
}

/** @param maxMs the longest since the start, in milliseconds. */
function latency(buckets: Float64Array, total: number, maxMs: number): Latency {
  const counted = buckets.reduce((sum, count) => sum + count, 0);
  const within = (part: number): number => {
    // Requests that took no time are in no bucket.
    const missing = total * part - (total - counted);
    if (missing <= 0) return 0;
    const end = percentile(buckets, counted, missing / counted) / NANOSECONDS_PER_MICROSECOND;
    return Math.min(end, maxMs * MICROSECONDS);
  };
  return { p50: within(0.5), p99: within(0.99), max: within(1) };
}

function layerRates(later: Statistics, earlier: Statistics): LayerRate[] {
  return later.layers.map(({ name, requests, ms }, index) => {
    const before = earlier.layers[index] ?? { requests: 0, ms: 0 };
    const count = Math.max(0, requests - before.requests);
    const microseconds = Math.max(0, ms - before.ms) * MICROSECONDS;
    return { name, requests: count, microseconds: count === 0 ? 0 : microseconds / count };
  });
}
