/** What has been answered, counted in memory that the thread of a queue writes and any other reads. */
import type { Statistics } from "../transport.ts";
import { LEDGER_CELLS } from "./ledger.ts";

/** Places of the counters in an array of each queue; what comes after them is the ledger's. */
export const REQUESTS = 0;
export const ERRORS = 1;
export const BYTES_READ = 2;
export const BYTES_WRITTEN = 3;
export const COUNTERS = 4;

/** All counters at 0, to be shared with the thread of a queue. */
export function makeCounters(): Float64Array<SharedArrayBuffer> {
  return new Float64Array(new SharedArrayBuffer(LEDGER_CELLS * Float64Array.BYTES_PER_ELEMENT));
}

/** What all queues of a device have counted together. */
export function sumCounters(counters: readonly Float64Array[]): Statistics {
  const sum = (place: number): number => counters.reduce((total, each) => total + (each[place] ?? 0), 0);
  return {
    requests: sum(REQUESTS),
    errors: sum(ERRORS),
    bytesRead: sum(BYTES_READ),
    bytesWritten: sum(BYTES_WRITTEN),
  };
}
