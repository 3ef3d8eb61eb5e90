/**
 * The objects of a disk. Binary ones are little-endian. Below the prefix:
 *
 *     disk                      what the disk is: JSON, made last when the disk is created
 *     log/NUMBER.WRITER         a segment, or the claim with which the next writer ends this writer's turn
 *     checkpoint/NUMBER         the root of a checkpoint: JSON; numbered without gaps, never removed
 *     map/NUMBER.WRITER/LEAF    a leaf of the map of a checkpoint
 *     reader/TIME.NUMBER.NAME   a reader of the disk: segments up to this number stay
 *     snapshot/NAME             the root of a snapshot: JSON
 *     snapshot-map/NUMBER.ID/LEAF  a leaf of the map of a snapshot
 *     ended/WRITER              this writer has detached the disk
 *
 * The log is one sequence of numbers. Each writer draws a random name and makes objects only under that name, so an
 * object that arrives late disturbs nobody. A new writer makes a claim at the number that the previous writer would use
 * next. From then on the previous writer cannot add to the log. Claims are never removed.
 *
 * The log of a clone begins where its snapshot ends. Earlier segments belong to its origin.
 */
import { randomBytes } from "node:crypto";
import { BLOCK_BYTES, CHUNK_BLOCKS, SEGMENT_BLOCKS_MAX } from "./parts.ts";

export const FORMAT = "tsbuse bucket";
/** Version 1 had no snapshots, and its cleaner would remove what they need. */
export const VERSION = 2;
export const DISK_KEY = "disk";
export const LOG_PREFIX = "log/";
export const CHECKPOINT_PREFIX = "checkpoint/";
export const MAP_PREFIX = "map/";
export const READER_PREFIX = "reader/";
export const SNAPSHOT_PREFIX = "snapshot/";
export const SNAPSHOT_MAP_PREFIX = "snapshot-map/";
export const ENDED_PREFIX = "ended/";

const MAGIC = 0x6b63_6275_7362_7374n;
const HEADER_BYTES = 128;
const ENTRY_BYTES = 12;
const CHUNK_ENTRY_BYTES = 16;
/** The most entries of a segment. */
export const ENTRIES_MAX = 4096;
/** A read of this many bytes from the start of an object of the log covers its header and its tables. */
export const HEAD_BYTES = 64 * 1024;

/**
 * Every claim has this size, and no segment does: a listing shows which objects must stay. It is 1 KiB less 3, so that
 * segments rarely need padding.
 */
export const CLAIM_BYTES = 1021;

const KINDS = { segment: 1, claim: 2 } as const;
/** What happens to a run of blocks: they get the next slots of the segment, or become holes. */
export const ENTRY = { data: 1, hole: 2 } as const;

/** Where an object stands in the log. */
export interface LogPlace {
  readonly number: number;
  /** The name of the writer whose turn it is: 32 hexadecimal digits. */
  readonly writer: string;
}

export interface Entry {
  readonly kind: (typeof ENTRY)[keyof typeof ENTRY];
  readonly block: number;
  readonly count: number;
}

/** Where the chunks of a segment lie in its object. */
export interface ChunkTable {
  /** Bytes from the start of the object: the start of each chunk, and the end of the last one. */
  readonly offsets: Uint32Array;
  /** 1 for a chunk that is compressed. */
  readonly compressed: Uint8Array;
  /** Checksums of the chunks as they are stored. */
  readonly checksums: BigUint64Array;
}

export interface SegmentHead {
  readonly kind: "segment";
  /** The name of the disk. */
  readonly disk: string;
  readonly number: number;
  /** The writer that made it. In a claim it is not the writer in the key. */
  readonly writer: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** How many blocks it holds. */
  readonly slots: number;
  readonly entries: readonly Entry[];
  readonly chunks: ChunkTable;
}

export interface ClaimHead {
  readonly kind: "claim";
  readonly disk: string;
  readonly number: number;
  readonly writer: string;
  readonly time: number;
  /** The host and the process, for messages. */
  readonly owner: string;
  /** The {@link VERSION} of the program that makes the claim. */
  readonly version: number;
}

export type Head = SegmentHead | ClaimHead;

/** A damaged object, or one that does not belong to the disk. */
export class DamageError extends Error {
  override readonly name = "DamageError";
}

/** A new name for a writer or a disk. */
export function newName(): string {
  return randomBytes(16).toString("hex");
}

export function logKey({ number, writer }: LogPlace): string {
  return `${LOG_PREFIX}${number.toString(16).padStart(12, "0")}.${writer}`;
}

/** The place that a key of the log names; undefined for any other key. */
export function placeOf(key: string): LogPlace | undefined {
  const [, number, writer] = /^log\/([0-9a-f]{12})\.([0-9a-f]{32})$/.exec(key) ?? [];
  if (number === undefined || writer === undefined) return undefined;
  return { number: Number.parseInt(number, 16), writer };
}

export function checkpointKey(number: number): string {
  return `${CHECKPOINT_PREFIX}${number.toString(16).padStart(8, "0")}`;
}

export function checksumOf(bytes: Uint8Array): bigint {
  const hash = Bun.hash.xxHash64(bytes);
  return BigInt.asUintN(64, BigInt(hash));
}

/** How many chunks hold this many slots. */
function chunksFor(slots: number): number {
  return Math.ceil(slots / CHUNK_BLOCKS);
}

/** A chunk that is ready for a segment. */
export interface Chunk {
  readonly bytes: Uint8Array;
  readonly isCompressed: boolean;
}

/** Memory for this many blocks of a segment, with room before them for its header and tables. */
export function blocksForSegment(count: number): Uint8Array<ArrayBuffer> {
  const room = HEADER_BYTES + ENTRIES_MAX * ENTRY_BYTES + chunksFor(count) * CHUNK_ENTRY_BYTES;
  return new Uint8Array(new ArrayBuffer(room + count * BLOCK_BYTES), room);
}

/**
 * The whole object of a segment.
 * @param blocks from {@link blocksForSegment}, with the chunks' blocks at its start. If no chunk is compressed, the
 * object is built in place: these megabytes are not copied.
 */
export function encodeSegment(
  head: Omit<SegmentHead, "kind" | "chunks">,
  chunks: readonly Chunk[],
  blocks: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const { entries } = head;
  const tableBytes = entries.length * ENTRY_BYTES + chunks.length * CHUNK_ENTRY_BYTES;
  const start = HEADER_BYTES + tableBytes;
  const length = chunks.reduce((total, { bytes }) => total + bytes.length, start);
  const isInPlace = chunks.length > 0 && !chunks.some(({ isCompressed }) => isCompressed);
  const object = isInPlace
    ? new Uint8Array(blocks.buffer, blocks.byteOffset - start, length)
    : new Uint8Array(new ArrayBuffer(length === CLAIM_BYTES ? length + 1 : length));
  const view = new DataView(object.buffer, object.byteOffset, object.length);
  let at = HEADER_BYTES;
  for (const { kind, block, count } of entries) {
    view.setUint32(at, block % 2 ** 32, true);
    view.setUint16(at + 4, Math.floor(block / 2 ** 32), true);
    view.setUint16(at + 6, kind, true);
    view.setUint32(at + 8, count, true);
    at += ENTRY_BYTES;
  }
  let offset = start;
  for (const { bytes, isCompressed } of chunks) {
    if (!isInPlace) object.set(bytes, offset);
    view.setUint32(at, bytes.length, true);
    view.setUint32(at + 4, isCompressed ? 1 : 0, true);
    view.setBigUint64(at + 8, checksumOf(bytes), true);
    at += CHUNK_ENTRY_BYTES;
    offset += bytes.length;
  }
  const counts = { slots: head.slots, entries: entries.length, chunks: chunks.length };
  encodeHeader(object, KINDS.segment, head, tableBytes, counts);
  return object;
}

/** The whole object of a claim. */
export function encodeClaim(head: Omit<ClaimHead, "kind" | "version">): Uint8Array<ArrayBuffer> {
  const object = new Uint8Array(new ArrayBuffer(CLAIM_BYTES));
  const table = object.subarray(HEADER_BYTES);
  new TextEncoder().encodeInto(head.owner, table);
  encodeHeader(object, KINDS.claim, head, table.length, { slots: 0, entries: 0, chunks: 0 });
  return object;
}

/** The fields that both kinds have in common. */
type Identity = Pick<Head, "disk" | "number" | "writer" | "time">;

interface Counts {
  readonly slots: number;
  readonly entries: number;
  readonly chunks: number;
}

function encodeHeader(
  object: Uint8Array<ArrayBuffer>,
  kind: number,
  { disk, number, writer, time }: Identity,
  tableBytes: number,
  { slots, entries, chunks }: Counts,
): void {
  const view = new DataView(object.buffer, object.byteOffset, object.length);
  view.setBigUint64(0, MAGIC, true);
  view.setUint16(8, VERSION, true);
  view.setUint16(10, kind, true);
  view.setUint32(12, tableBytes, true);
  view.setFloat64(16, number, true);
  view.setFloat64(24, time, true);
  object.set(Uint8Array.fromHex(writer), 32);
  object.set(Uint8Array.fromHex(disk), 48);
  view.setUint32(64, slots, true);
  view.setUint32(68, entries, true);
  view.setUint32(72, chunks, true);
  view.setBigUint64(112, checksumOf(object.subarray(HEADER_BYTES, HEADER_BYTES + tableBytes)), true);
  view.setBigUint64(120, checksumOf(object.subarray(0, 120)), true);
}

/**
 * Decodes the header and the tables.
 * @param object its first {@link HEAD_BYTES}, or all of a shorter one.
 * @param disk that the log belongs to.
 * @throws DamageError
 */
export function decodeHead(object: Uint8Array, disk: string): Head {
  const view = new DataView(object.buffer, object.byteOffset, object.byteLength);
  if (object.length < HEADER_BYTES || view.getBigUint64(0, true) !== MAGIC)
    throw new DamageError("is no object of a disk");
  // The version is checked before the checksum: a newer one may have another kind of checksum.
  const version = view.getUint16(8, true);
  if (version > VERSION)
    throw new DamageError(`has format ${version}, and this program knows up to ${VERSION}: use a newer one`);
  const tableBytes = view.getUint32(12, true);
  const table = object.subarray(HEADER_BYTES, HEADER_BYTES + tableBytes);
  if (
    view.getBigUint64(120, true) !== checksumOf(object.subarray(0, 120)) ||
    table.length !== tableBytes ||
    view.getBigUint64(112, true) !== checksumOf(table)
  )
    throw new DamageError("has a wrong checksum");
  const identity = {
    disk: object.slice(48, 64).toHex(),
    number: view.getFloat64(16, true),
    writer: object.slice(32, 48).toHex(),
    time: view.getFloat64(24, true),
  };
  if (identity.disk !== disk) throw new DamageError("belongs to another disk");
  if (view.getUint16(10, true) === KINDS.claim)
    return { kind: "claim", ...identity, version, owner: ownerIn(table) };
  return decodeTables(view, identity);
}

function ownerIn(table: Uint8Array): string {
  return new TextDecoder().decode(table).replace(/\0.*$/s, "");
}

function decodeTables(view: DataView, identity: Identity): SegmentHead {
  const slots = view.getUint32(64, true);
  const entryCount = view.getUint32(68, true);
  const chunkCount = view.getUint32(72, true);
  const isWhole = view.getUint32(12, true) === entryCount * ENTRY_BYTES + chunkCount * CHUNK_ENTRY_BYTES;
  if (slots > SEGMENT_BLOCKS_MAX || chunkCount !== chunksFor(slots) || !isWhole)
    throw new DamageError("has an invalid table");
  const entries: Entry[] = [];
  let at = HEADER_BYTES;
  for (let index = 0; index < entryCount; index += 1, at += ENTRY_BYTES) {
    const kind = view.getUint16(at + 6, true) === ENTRY.data ? ENTRY.data : ENTRY.hole;
    const block = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
    entries.push({ kind, block, count: view.getUint32(at + 8, true) });
  }
  const chunks = {
    offsets: new Uint32Array(chunkCount + 1),
    compressed: new Uint8Array(chunkCount),
    checksums: new BigUint64Array(chunkCount),
  };
  let offset = at + chunkCount * CHUNK_ENTRY_BYTES;
  for (let index = 0; index < chunkCount; index += 1, at += CHUNK_ENTRY_BYTES) {
    chunks.offsets[index] = offset;
    chunks.compressed[index] = view.getUint32(at + 4, true) & 1;
    chunks.checksums[index] = view.getBigUint64(at + 8, true);
    offset += view.getUint32(at, true);
  }
  chunks.offsets[chunkCount] = offset;
  return { kind: "segment", ...identity, slots, entries, chunks };
}
