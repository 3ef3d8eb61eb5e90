/** Writes a trace as a record: see record/format.ts. */
import { kind, type Kind, SECTOR } from "../record/format.ts";
import type { RecordWriter } from "../record/writer.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../uapi/nbd.ts";
import type { Traced, TracedRequest } from "./request.ts";

const KINDS: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [NBD_CMD_READ, kind.read],
  [NBD_CMD_WRITE, kind.write],
  [NBD_CMD_FLUSH, kind.flush],
  [NBD_CMD_TRIM, kind.trim],
  [NBD_CMD_WRITE_ZEROES, kind.zero],
]);
const NANOSECONDS = 1_000_000;

export class TraceRecord {
  readonly #writer: RecordWriter;
  readonly #size: number;
  readonly #wantsData: boolean;
  /** When the last request was answered, in nanoseconds since the trace began. */
  #time = 0;

  /** @param size of the device at the start of the record, in bytes. */
  constructor(writer: RecordWriter, size: number, wantsData: boolean) {
    this.#writer = writer;
    this.#size = size;
    this.#wantsData = wantsData;
  }

  /** Returns how many of the requests the record lacks; undefined if it has ended. */
  add({ requests, lost }: Traced): number | undefined {
    let missing = lost;
    for (const request of requests) {
      const answer = this.#add(request);
      if (answer === undefined) return undefined;
      if (!answer) missing += 1;
    }
    if (missing > 0 && !this.#writer.lost(missing, this.#time)) return undefined;
    return missing;
  }

  /** Returns false if the record will lack this request; undefined if it has ended. */
  #add({
    command,
    flags,
    offset,
    length,
    error,
    arrived,
    settled,
    data,
  }: TracedRequest): boolean | undefined {
    const what = KINDS.get(command);
    const isRange = offset % SECTOR === 0 && length % SECTOR === 0 && offset + length <= this.#size;
    const failed = error !== 0;
    // A refused request has changed nothing, and the kernel sends no other commands.
    if (what === undefined || (failed && !isRange)) return true;
    // The device has grown, or the bytes were overwritten before they were read.
    const isWrite = what === kind.write;
    if (!isRange || (isWrite && this.#wantsData && data === undefined)) return false;
    this.#time = nanoseconds(settled);
    const isRecorded = this.#writer.answered({
      kind: what,
      offset: what === kind.flush ? 0 : offset,
      length: what === kind.flush ? 0 : length,
      fua: (flags & NBD_CMD_FLAG_FUA) !== 0,
      failed,
      begun: nanoseconds(arrived),
      done: this.#time,
      payload: isWrite ? data : undefined,
    });
    return isRecorded ? true : undefined;
  }
}

/** A request that arrived before the trace began counts as arriving at its start. */
function nanoseconds(milliseconds: number): number {
  return Math.max(0, Math.round(milliseconds * NANOSECONDS));
}
