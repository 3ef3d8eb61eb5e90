/**
 * The counters of a queue, in memory that the thread of the queue writes and any other reads: requests by kind, how
 * long they waited and how long the device took, errors, parts of the disk, and the oldest unanswered request. Counting
 * is always on: a request costs a few additions, and nothing is allocated.
 *
 * A reader may see only some of the counters of the latest request updated.
 */
import { BUCKETS, bucketOf } from "../values/log-buckets.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../uapi/nbd.ts";

/** Kinds of requests, by their numbers here. A write with FUA is a kind of its own. */
export const KINDS = ["read", "write", "fua", "flush", "trim", "zero", "other"] as const;
export type Kind = (typeof KINDS)[number];
export const [READ, WRITE, FUA_WRITE, FLUSH, TRIM, ZERO, OTHER] = [0, 1, 2, 3, 4, 5, 6] as const;

/** The number of parts of the disk with counters of their own. */
const HEAT_CELLS = 64;
/** Errors from this number on share a counter. */
const ERRNO_MAX = 160;

/** The counters of each kind: these, and two histograms. */
export const COUNT = 0;
export const BYTES = 1;
export const FAILED = 2;
/** Milliseconds: the sum, and the longest. */
export const QUEUED = 3;
export const QUEUED_MAX = 4;
export const SERVED = 5;
export const SERVED_MAX = 6;
/** Requests that took no time are in no bucket. */
export const QUEUED_BUCKETS = 8;
export const SERVED_BUCKETS = QUEUED_BUCKETS + BUCKETS;
const KIND_CELLS = SERVED_BUCKETS + BUCKETS;

/** An unanswered request: its time of arrival, or 0 for none; its kind, offset and length. */
const SINCE = 0;
const WHAT = 1;
const OFFSET = 2;
const LENGTH = 3;

/** Where all this is, after the counters of counters.ts. */
const ORIGIN = 4;
/** The oldest request that the queue holds, and the one for which it is calling the device. */
export const HELD = 8;
export const CALLED = 12;
const ERRNOS = 16;
const READ_HEAT = ERRNOS + ERRNO_MAX;
const WRITE_HEAT = READ_HEAT + HEAT_CELLS;
const FIRST_KIND = WRITE_HEAT + HEAT_CELLS;
export const LEDGER_CELLS = FIRST_KIND + KINDS.length * KIND_CELLS;

/** @param command NBD_CMD_*. @param flags NBD_CMD_FLAG_*. */
export function kindOf(command: number, flags: number): number {
  switch (command) {
    case NBD_CMD_READ:
      return READ;
    case NBD_CMD_WRITE:
      return (flags & NBD_CMD_FLAG_FUA) === 0 ? WRITE : FUA_WRITE;
    case NBD_CMD_FLUSH:
      return FLUSH;
    case NBD_CMD_TRIM:
      return TRIM;
    case NBD_CMD_WRITE_ZEROES:
      return ZERO;
    default:
      return OTHER;
  }
}

/** What the ledger needs to know of a request. Times in milliseconds, as in serving/clock.ts; bytes. */
interface Asked {
  /** See {@link KINDS}. */
  readonly kind: number;
  readonly offset: number;
  readonly length: number;
  readonly arrived: number;
}

interface Answered extends Asked {
  readonly begun: number;
  readonly settled: number;
}

/** The writer's side, on the thread of the queue. */
export class Ledger {
  readonly #cells: Float64Array;
  readonly #disk: { readonly size: number };

  /** @param cells as {@link makeCounters} makes them. */
  constructor(cells: Float64Array, disk: { readonly size: number }) {
    this.#cells = cells;
    this.#disk = disk;
    cells[ORIGIN] = performance.timeOrigin;
  }

  /** @param error an errno, 0 for success. */
  answered({ kind, offset, length, arrived, begun, settled }: Answered, error: number): void {
    const cells = this.#cells;
    const at = FIRST_KIND + kind * KIND_CELLS;
    add(cells, at + COUNT, 1);
    if (error === 0) {
      add(cells, at + BYTES, length);
      if (kind <= FUA_WRITE) {
        const cell = Math.min(HEAT_CELLS - 1, Math.trunc((offset * HEAT_CELLS) / this.#disk.size));
        add(cells, (kind === READ ? READ_HEAT : WRITE_HEAT) + cell, length);
      }
    } else {
      add(cells, at + FAILED, 1);
      add(cells, ERRNOS + (error < ERRNO_MAX ? error : 0), 1);
    }
    const queued = begun - arrived;
    if (queued > 0) {
      add(cells, at + QUEUED, queued);
      if (queued > (cells[at + QUEUED_MAX] ?? 0)) cells[at + QUEUED_MAX] = queued;
      add(cells, at + QUEUED_BUCKETS + bucketOf(queued), 1);
    }
    const served = settled - begun;
    if (served > 0) {
      add(cells, at + SERVED, served);
      if (served > (cells[at + SERVED_MAX] ?? 0)) cells[at + SERVED_MAX] = served;
      add(cells, at + SERVED_BUCKETS + bucketOf(served), 1);
    }
  }

  /**
   * Call it before the device is called, which may never return. Only a thread of a queue notes it: the main thread can
   * then still report it.
   */
  calls(request: Asked): void {
    if (!Bun.isMainThread) put(this.#cells, CALLED, request);
  }

  returned(): void {
    this.#cells[CALLED + SINCE] = 0;
  }

  /** Sets the oldest of the requests that wait or are with the device. */
  setOldest(request: Asked | undefined): void {
    if (request === undefined) this.#cells[HELD + SINCE] = 0;
    else put(this.#cells, HELD, request);
  }
}

function add(cells: Float64Array, at: number, number: number): void {
  cells[at] = (cells[at] ?? 0) + number;
}

/** Writes the time last: it makes the other fields valid. */
function put(cells: Float64Array, at: number, { kind, offset, length, arrived }: Asked): void {
  cells[at + SINCE] = 0;
  cells[at + WHAT] = kind;
  cells[at + OFFSET] = offset;
  cells[at + LENGTH] = length;
  cells[at + SINCE] = arrived;
}

// --- the reader's side, on any thread ---

/** The cells of one kind. */
export function kindCells(cells: Float64Array, kind: number): Float64Array {
  const at = FIRST_KIND + kind * KIND_CELLS;
  return cells.subarray(at, at + KIND_CELLS);
}

/** Failed requests by errno; at 0 those with an errno of {@link ERRNO_MAX} or more. */
export function errorCells(cells: Float64Array): Float64Array {
  return cells.subarray(ERRNOS, ERRNOS + ERRNO_MAX);
}

/** Bytes read from, or written to, each part of the disk. */
export function heatCells(cells: Float64Array, what: "read" | "write"): Float64Array {
  const at = what === "read" ? READ_HEAT : WRITE_HEAT;
  return cells.subarray(at, at + HEAT_CELLS);
}

/** An unanswered request. */
export interface Unanswered {
  readonly kind: Kind;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** How long ago it arrived, in milliseconds. */
  readonly ageMs: number;
}

/** The oldest unanswered request of a queue; undefined if there is none, or it is just changing. */
export function oldestOf(cells: Float64Array): Unanswered | undefined {
  const now = performance.timeOrigin + performance.now() - (cells[ORIGIN] ?? 0);
  let oldest: Unanswered | undefined;
  for (const at of [HELD, CALLED]) {
    const [since = 0, what = 0, offset = 0, length = 0] = cells.subarray(at, at + LENGTH + 1);
    if (since === 0 || since !== cells[at + SINCE]) continue;
    const ageMs = Math.max(0, now - since);
    if (ageMs >= (oldest?.ageMs ?? 0)) oldest = { kind: KINDS[what] ?? "other", offset, length, ageMs };
  }
  return oldest;
}

/** The sum of the counters of all queues of a device, in one array that the functions above read. */
export function sumLedgers(ledgers: readonly Float64Array[]): Float64Array {
  const sum = new Float64Array(LEDGER_CELLS);
  for (const cells of ledgers)
    for (let at = ERRNOS; at < LEDGER_CELLS; at += 1) {
      const cell = cells[at] ?? 0;
      if (isMaximum(at)) sum[at] = Math.max(sum[at] ?? 0, cell);
      else add(sum, at, cell);
    }
  return sum;
}

/** What was counted between two sums. The longest times between them are unknown: see {@link longest}. */
export function difference(later: Float64Array, earlier: Float64Array): Float64Array {
  return later.map((cell, at) => (isMaximum(at) ? cell : Math.max(0, cell - (earlier[at] ?? 0))));
}

function isMaximum(at: number): boolean {
  const place = at < FIRST_KIND ? 0 : (at - FIRST_KIND) % KIND_CELLS;
  return place === QUEUED_MAX || place === SERVED_MAX;
}
