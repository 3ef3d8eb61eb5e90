/** Reads a record as its recorder left it. The recorder may have ended, have been killed, or still be at work. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { messageOf, UserError } from "../errors.ts";
import {
  decodeHead,
  decodeHeader,
  HEAD_BYTES,
  type Head,
  HEADER_BYTES,
  kind,
  type RecordedDevice,
  SECTOR,
} from "./format.ts";

/** One record, and where its payload begins in the file. */
export interface RecordedEvent extends Head {
  readonly at: number;
}

export interface RecordFile {
  readonly path: string;
  /** Bytes of the device. */
  readonly size: number;
  readonly writeThrough: boolean;
  readonly isTrace: boolean;
  /** The whole file: payloads lie in it. */
  readonly bytes: Uint8Array;
  /** In the order in which they happened. */
  readonly events: readonly RecordedEvent[];
  /** The offset at which a record is cut off, in bytes; undefined if the file is complete. */
  readonly cutOffAt: number | undefined;
}

/** @throws UserError */
export function readRecord(path: string): RecordFile {
  const bytes = map(path);
  const device = decodeHeader(path, bytes);
  const events: RecordedEvent[] = [];
  let at = HEADER_BYTES;
  while (at < bytes.length) {
    const record = decodeHead(bytes, at);
    if (record === undefined) break;
    if (!isPossible(record, device))
      throw new UserError(`${path} is damaged at byte ${at}: record once more`);
    events.push({ ...record, at: at + HEAD_BYTES });
    at += HEAD_BYTES + record.payload;
  }
  const inOrder = device.isTrace ? byTime(events) : events;
  return { path, ...device, bytes, events: inOrder, cutOffAt: at < bytes.length ? at : undefined };
}

/** What the record lacks for building states of a disk from it, with the remedy; undefined if nothing. */
export function whyNotWhole({ path, events }: RecordFile): string | undefined {
  const lost = events.reduce((sum, event) => sum + (event.kind === kind.lost ? event.length : 0), 0);
  if (lost > 0)
    return `${path} misses ${lost} requests, which were not traced: record with --layer record:file=FILE`;
  const isBare = events.some((each) => each.kind === kind.write && each.payload < each.length);
  return isBare ? `${path} has writes without their bytes: trace with --data` : undefined;
}

/**
 * The events of a trace in their order. An answer comes before a request with the same time: the sender of the request
 * may have waited for that answer.
 */
function byTime(events: readonly RecordedEvent[]): RecordedEvent[] {
  const begun = new Map(
    events.flatMap((each) => (each.kind === kind.done ? [] : [[each.request, each.time] as const])),
  );
  const rank = ({ kind: what, request, time }: RecordedEvent): number =>
    what !== kind.done ? 1 : (begun.get(request) ?? time) < time ? 0 : 2;
  return events.toSorted((a, b) => a.time - b.time || rank(a) - rank(b));
}

/** Whether the range is whole sectors within the device, and the payload as long as its kind requires. */
function isPossible(
  { kind: what, offset, length, payload }: Head,
  { size, isTrace }: RecordedDevice,
): boolean {
  if (what === kind.mark || what === kind.lost) return true;
  const isRange = offset % SECTOR === 0 && length % SECTOR === 0 && offset + length <= size;
  return isRange && (payload === (what === kind.write ? length : 0) || (isTrace && payload === 0));
}

/** Maps the file, since records are long: the system decides how much of it is in memory. */
function map(path: string): Uint8Array {
  try {
    const fd = openSync(path, "r");
    const stats = fstatSync(fd);
    closeSync(fd);
    if (!stats.isFile()) throw new UserError("it is not a regular file, give a record");
    // An empty file cannot be mapped.
    return stats.size === 0 ? new Uint8Array() : Bun.mmap(path, { shared: true });
  } catch (error) {
    const missing = messageOf(error).includes("ENOENT");
    throw new UserError(
      `${path} cannot be read: ${missing ? "it does not exist, give a record" : messageOf(error)}`,
    );
  }
}

/** The text of a mark. */
export function markText({ bytes }: RecordFile, { at, payload }: RecordedEvent): string {
  return Buffer.from(bytes.subarray(at, at + payload)).toString();
}
