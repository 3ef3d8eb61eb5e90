/**
 * The file of a journal, in blocks of 4096 bytes:
 *
 *     0, 1     the header as JSON, twice: the valid copy with the higher generation counts
 *     then     areas, one for each segment that can be on its way: segment N uses area N modulo their number
 *
 * An area contains batches from its start on. A batch is a block with a header and a table of changes, followed by the
 * blocks that these write, little-endian. It contains whole changes of one segment, so a cut between two batches never
 * tears a write. It starts at a new block, so nothing on stable storage is ever written again.
 */
import { UserError } from "tsbuse";
import { checksumOf, ENTRY, type Entry } from "./format.ts";
import { BLOCK_BYTES, SEGMENT_BLOCKS_MAX } from "./parts.ts";

const FORMAT = "tsbuse bucket journal";
const VERSION = 1;
const CHECKSUM_DIGITS = 16;
export const HEADER_BLOCKS = 2;

const MAGIC = 0x6c6e_6a65_7362_7374n;
const TABLE_AT = 80;
const CHANGE_BYTES = 12;
const CHECKSUM_AT = BLOCK_BYTES - 8;
const DATA_CHECKSUM_AT = BLOCK_BYTES - 16;
/** The most changes of a batch. */
const CHANGES_MAX = Math.floor((DATA_CHECKSUM_AT - TABLE_AT) / CHANGE_BYTES);

export interface JournalLayout {
  readonly areas: number;
  /** Blocks in an area. */
  readonly areaBlocks: number;
  /** The most blocks in a segment. */
  readonly segmentBlocks: number;
}

/** Names are names of writers; "" is none. */
export interface JournalHeader extends JournalLayout {
  readonly generation: number;
  readonly disk: string;
  /** The writer whose segments are in the batches. */
  readonly origin: string;
  /**
   * The last writer known to have claimed the disk: `origin`, or one of those after it, who write its batches to the
   * bucket.
   */
  readonly owner: string;
  /**
   * Unless `owner` is `origin`: the number of its first segment, which repeats the first one of `origin` from `floor`
   * on.
   */
  readonly ownerFirst: number;
  readonly floor: number;
  /** A writer that may have made the claim after `owner`, and nothing else. */
  readonly candidate: string;
  /** The boot of the system during which the batches were written. */
  readonly boot: string;
}

export function blocksOf({ areas, areaBlocks }: JournalLayout): number {
  return HEADER_BLOCKS + areas * areaBlocks;
}

export function encodeHeader(header: JournalHeader): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify({ format: FORMAT, version: VERSION, ...header });
  const checksum = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  const block = new Uint8Array(new ArrayBuffer(BLOCK_BYTES));
  new TextEncoder().encodeInto(`${checksum}\n${json}\n`, block);
  return block;
}

/** Undefined for a block that is not a valid header. @throws UserError for a newer one */
export function decodeHeader(block: Uint8Array, name: string): JournalHeader | undefined {
  const [checksum, json = ""] = new TextDecoder().decode(block).split("\n");
  const own = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  if (checksum !== own) return undefined;
  const found: unknown = JSON.parse(json);
  if (typeof found !== "object" || found === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(found));
  if (fields.get("format") !== FORMAT) return undefined;
  if (fields.get("version") !== VERSION)
    throw new UserError(
      `the journal in ${name} has format ${String(fields.get("version"))}: use a newer tsbuse`,
    );
  const text = (key: string): string => String(fields.get(key) ?? "");
  const number = (key: string): number => Number(fields.get(key) ?? 0);
  const segmentBlocks = number("segmentBlocks");
  if (segmentBlocks > SEGMENT_BLOCKS_MAX) return undefined;
  return {
    generation: number("generation"),
    disk: text("disk"),
    areas: number("areas"),
    areaBlocks: number("areaBlocks"),
    segmentBlocks,
    origin: text("origin"),
    owner: text("owner"),
    ownerFirst: number("ownerFirst"),
    floor: number("floor"),
    candidate: text("candidate"),
    boot: text("boot"),
  };
}

/** The place of a batch. */
export interface BatchPlace {
  readonly writer: string;
  /** The number of its segment. */
  readonly number: number;
  /** The number of the batch, counted for each writer without gaps. */
  readonly sequence: number;
  /** The segment of the previous batch; 0 for the first batch. */
  readonly before: number;
  /** The last batch known to be on stable storage when this one was written; 0: none. */
  readonly synced: number;
  /** The segment of that batch. */
  readonly syncedNumber: number;
  /** The block of its area where it starts. */
  readonly at: number;
}

export interface Batch extends BatchPlace {
  readonly changes: readonly Entry[];
  /** Blocks after the first one. */
  readonly blocks: number;
  readonly checksum: bigint;
}

/** A batch being filled with changes of one segment. */
export class BatchBuffer {
  number = 0;
  changes = 0;
  /** Blocks after the first one. */
  blocks = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** @param capacity the most blocks that it can hold. */
  constructor(readonly capacity: number) {
    const buffer = new ArrayBuffer((1 + capacity) * BLOCK_BYTES);
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  clear(): void {
    this.changes = 0;
    this.blocks = 0;
  }

  hasRoomFor(number: number, blocks: number): boolean {
    if (this.changes === 0) return true;
    return this.number === number && this.changes < CHANGES_MAX && this.blocks + blocks <= this.capacity;
  }

  /** Copies `data`; without `data` the blocks become holes. */
  add(number: number, block: number, count: number, data?: Uint8Array): void {
    const at = TABLE_AT + this.changes * CHANGE_BYTES;
    this.#view.setUint32(at, block % 2 ** 32, true);
    this.#view.setUint16(at + 4, Math.floor(block / 2 ** 32), true);
    this.#view.setUint16(at + 6, data === undefined ? ENTRY.hole : ENTRY.data, true);
    this.#view.setUint32(at + 8, count, true);
    this.number = number;
    this.changes += 1;
    if (data === undefined) return;
    this.#bytes.set(data, (1 + this.blocks) * BLOCK_BYTES);
    this.blocks += count;
  }

  /** The bytes of the batch. They belong to this buffer. */
  encode({ writer, number, sequence, before, synced, syncedNumber, at }: BatchPlace): Uint8Array {
    const view = this.#view;
    const bytes = this.#bytes.subarray(0, (1 + this.blocks) * BLOCK_BYTES);
    bytes.fill(0, TABLE_AT + this.changes * CHANGE_BYTES, BLOCK_BYTES);
    view.setBigUint64(0, MAGIC, true);
    view.setUint32(8, at, true);
    view.setUint32(12, this.changes, true);
    view.setUint32(16, this.blocks, true);
    view.setUint32(20, 0, true);
    view.setFloat64(24, number, true);
    view.setFloat64(32, sequence, true);
    view.setFloat64(40, before, true);
    view.setFloat64(48, synced, true);
    bytes.set(Uint8Array.fromHex(writer), 56);
    view.setFloat64(72, syncedNumber, true);
    view.setBigUint64(DATA_CHECKSUM_AT, checksumOf(bytes.subarray(BLOCK_BYTES)), true);
    view.setBigUint64(CHECKSUM_AT, checksumOf(bytes.subarray(0, CHECKSUM_AT)), true);
    return bytes;
  }
}

/** The batch whose first block this is, without checking its data; undefined when it is not one. */
export function decodeBatch(block: Uint8Array): Batch | undefined {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  if (block.length < BLOCK_BYTES || view.getBigUint64(0, true) !== MAGIC) return undefined;
  if (view.getBigUint64(CHECKSUM_AT, true) !== checksumOf(block.subarray(0, CHECKSUM_AT))) return undefined;
  const changes: Entry[] = [];
  const count = view.getUint32(12, true);
  for (let index = 0, at = TABLE_AT; index < count; index += 1, at += CHANGE_BYTES)
    changes.push({
      kind: view.getUint16(at + 6, true) === ENTRY.data ? ENTRY.data : ENTRY.hole,
      block: view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32,
      count: view.getUint32(at + 8, true),
    });
  return {
    at: view.getUint32(8, true),
    blocks: view.getUint32(16, true),
    number: view.getFloat64(24, true),
    sequence: view.getFloat64(32, true),
    before: view.getFloat64(40, true),
    synced: view.getFloat64(48, true),
    syncedNumber: view.getFloat64(72, true),
    writer: block.slice(56, 72).toHex(),
    checksum: view.getBigUint64(DATA_CHECKSUM_AT, true),
    changes,
  };
}
