/** Reads a record as it was left, by a recorder that has ended, was killed, or is at work still. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { messageOf, UserError } from "../errors.ts";
import { decodeHead, decodeHeader, HEAD_BYTES, type Head, HEADER_BYTES, kind, SECTOR } from "./format.ts";

/** One record, and where its payload begins in the file. */
export interface RecordedEvent extends Head {
  readonly at: number;
}

export interface RecordFile {
  readonly path: string;
  /** Bytes of the device. */
  readonly size: number;
  readonly writeThrough: boolean;
  /** The whole file: payloads lie in it. */
  readonly bytes: Uint8Array;
  readonly events: readonly RecordedEvent[];
  /** Where the file ends in the middle of a record, in bytes; undefined: it does not. */
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
    if (!isPossible(record, device.size))
      throw new UserError(`${path} is damaged at byte ${at}: record once more`);
    events.push({ ...record, at: at + HEAD_BYTES });
    at += HEAD_BYTES + record.payload;
  }
  return { path, ...device, bytes, events, cutOffAt: at < bytes.length ? at : undefined };
}

/** A range of whole sectors within the device, and as much payload as its kind has. */
function isPossible({ kind: what, offset, length, payload }: Head, size: number): boolean {
  if (what === kind.mark) return true;
  const isRange = offset % SECTOR === 0 && length % SECTOR === 0 && offset + length <= size;
  return isRange && payload === (what === kind.write ? length : 0);
}

/** Records are long: what of one is in memory is the system's to choose. */
function map(path: string): Uint8Array {
  try {
    const fd = openSync(path, "r");
    const stats = fstatSync(fd);
    closeSync(fd);
    if (!stats.isFile()) throw new UserError("it is not a regular file, give a record");
    // Nothing can be mapped of an empty file.
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
