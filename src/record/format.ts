/**
 * The layout of a record: a header followed by records, each of a head and a payload. Numbers are little-endian. Each
 * record carries a checksum: if a crash of the recorder has cut one off, that is noticed, and everything before it can
 * be used.
 *
 * The records are in the order of the events. A change or a flush is recorded with a number when it begins, and again
 * when it is answered: between the two, it was in flight. A trace is written from answers, so that both stand together
 * there; their times give the order.
 */
import { crc32 } from "node:zlib";
import { UserError } from "../errors.ts";

const MAGIC = "tsbuse record\n\0\0";
const VERSION = 2;
export const HEADER_BYTES = 64;
export const HEAD_BYTES = 40;
/** A disk writes a sector completely or not at all. */
export const SECTOR = 512;

/** Offsets of the fields of the header, in bytes. */
const header = { magic: 0, version: 16, flags: 20, size: 24, check: 60 } as const;
/** Offsets of the fields of the head of a record. The checksum is that of the rest of the head, and of the payload. */
const head = {
  check: 0,
  kind: 4,
  flags: 5,
  request: 8,
  payload: 12,
  offset: 16,
  length: 24,
  time: 32,
} as const;

/**
 * What is recorded: changes and flushes when they begin; `done` when one of them is answered; `mark` by a user. A trace
 * also has reads, and `lost` where it misses as many requests as the length says.
 */
export const kind = { write: 1, zero: 2, trim: 3, flush: 4, done: 5, mark: 6, read: 7, lost: 8 } as const;
export type Kind = (typeof kind)[keyof typeof kind];

/** A flag of the header: the device has nothing to flush. */
const WRITE_THROUGH = 1;
/** A flag of the header: the times of the records give their order. */
const TRACE = 2;
/** A flag of a change. */
const FUA = 1;
/** A flag of an answer. */
const FAILED = 1;

/** What the header says about the device. */
export interface RecordedDevice {
  /** Bytes. */
  readonly size: number;
  /** What was answered is on stable storage: there is nothing to flush. */
  readonly writeThrough: boolean;
  /** The record is a trace: a write may be without its bytes. */
  readonly isTrace: boolean;
}

/** One record. `offset`, `length` and `payload` are bytes; what does not belong to its kind is 0 or false. `time` is
 * nanoseconds since the record began. */
export interface Head {
  readonly kind: Kind;
  readonly fua: boolean;
  readonly failed: boolean;
  readonly request: number;
  readonly payload: number;
  readonly offset: number;
  readonly length: number;
  readonly time: number;
}

export function encodeHeader({ size, writeThrough, isTrace }: RecordedDevice): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from(MAGIC, "latin1"), header.magic);
  view.setUint32(header.version, VERSION, true);
  view.setUint32(header.flags, flag(writeThrough, WRITE_THROUGH) | flag(isTrace, TRACE), true);
  setLong(view, header.size, size);
  view.setUint32(header.check, crc32(bytes.subarray(0, header.check)), true);
  return bytes;
}

/** @throws UserError for what is not a record of this version. */
export function decodeHeader(path: string, bytes: Uint8Array): RecordedDevice {
  if (bytes.length === 0) throw new UserError(`${path} is empty, nothing was recorded: give another record`);
  const magic = Buffer.from(bytes.subarray(0, MAGIC.length)).toString("latin1");
  if (bytes.length < HEADER_BYTES || magic !== MAGIC) {
    throw new UserError(
      `${path} is not a record of tsbuse: give a file that --layer record or tsbuse trace has made`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const version = view.getUint32(header.version, true);
  if (version !== VERSION) {
    throw new UserError(
      `${path} is a record of version ${version}, this tsbuse knows ${VERSION}: use the one it was made with`,
    );
  }
  const size = getLong(view, header.size);
  const isWhole = view.getUint32(header.check, true) === crc32(bytes.subarray(0, header.check));
  if (!isWhole || size % SECTOR !== 0) throw new UserError(`${path} is damaged: record once more`);
  const flags = view.getUint32(header.flags, true);
  return { size, writeThrough: (flags & WRITE_THROUGH) !== 0, isTrace: (flags & TRACE) !== 0 };
}

/** @param target of {@link HEAD_BYTES}. */
export function encodeHead(target: DataView<ArrayBuffer>, record: Head, payload?: Uint8Array): void {
  target.setUint8(head.kind, record.kind);
  target.setUint8(
    head.flags,
    record.kind === kind.done ? flag(record.failed, FAILED) : flag(record.fua, FUA),
  );
  target.setUint32(head.request, record.request, true);
  target.setUint32(head.payload, record.payload, true);
  setLong(target, head.offset, record.offset);
  setLong(target, head.length, record.length);
  setLong(target, head.time, record.time);
  target.setUint32(head.check, checksum(new Uint8Array(target.buffer), payload), true);
}

/**
 * The record that begins at `offset`; undefined if there is none, or only a part of it.
 * @param bytes of the whole file.
 */
export function decodeHead(bytes: Uint8Array, at: number): Head | undefined {
  if (at + HEAD_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEAD_BYTES);
  const payload = view.getUint32(head.payload, true);
  const end = at + HEAD_BYTES + payload;
  if (end > bytes.length) return undefined;
  const check = checksum(bytes.subarray(at, at + HEAD_BYTES), bytes.subarray(at + HEAD_BYTES, end));
  const found = Object.values(kind).find((each) => each === view.getUint8(head.kind));
  if (check !== view.getUint32(head.check, true) || found === undefined) return undefined;
  const flags = view.getUint8(head.flags);
  return {
    kind: found,
    fua: found !== kind.done && (flags & FUA) !== 0,
    failed: found === kind.done && (flags & FAILED) !== 0,
    request: view.getUint32(head.request, true),
    payload,
    offset: getLong(view, head.offset),
    length: getLong(view, head.length),
    time: getLong(view, head.time),
  };
}

function checksum(headBytes: Uint8Array, payload: Uint8Array | undefined): number {
  const ofHead = crc32(headBytes.subarray(head.kind, HEAD_BYTES));
  return payload === undefined || payload.length === 0 ? ofHead : crc32(payload, ofHead);
}

function flag(isSet: boolean, value: number): number {
  return isSet ? value : 0;
}

/** 64 bits, of which a number holds 53, without a bigint. */
function setLong(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function getLong(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
