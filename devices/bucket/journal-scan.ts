/** Reads the file of a journal: its header, and which batches are whole. */
import { UserError } from "tsbuse";
import { checksumOf } from "./format.ts";
import {
  type Batch,
  decodeBatch,
  decodeHeader,
  HEADER_BLOCKS,
  type JournalHeader,
  type JournalLayout,
} from "./journal-format.ts";
import type { JournalStorage } from "./journal-file.ts";
import { BLOCK_BYTES } from "./parts.ts";

export interface Scan {
  /** Undefined: it has never been used. */
  readonly header: JournalHeader | undefined;
  /** The batches of each area from its start up to the first that is not whole, in the order they were written. */
  readonly batches: readonly Batch[];
  /** Batches after one that is not whole. They may be left from an earlier segment. */
  readonly strays: readonly Batch[];
}

/** @throws UserError for a journal that is newer, has no valid header, or is too short */
export async function scanJournal(storage: JournalStorage): Promise<Scan> {
  const header = await readHeader(storage);
  const batches: Batch[] = [];
  const strays: Batch[] = [];
  if (header === undefined) return { header, batches, strays };
  const area = new Uint8Array(new ArrayBuffer(header.areaBlocks * BLOCK_BYTES));
  for (let index = 0; index < header.areas; index += 1) {
    if ((await storage.read(area, offsetOf(header, index, 0))) < area.length) throw damagedError(storage);
    scanArea(area, header.origin, batches, strays);
  }
  return { header, batches: batches.toSorted(bySequence), strays: strays.toSorted(bySequence) };
}

function bySequence(a: Batch, b: Batch): number {
  return a.sequence - b.sequence;
}

/** The blocks that the batch writes. @throws UserError when they have changed since the scan. */
export async function readBatch(
  storage: JournalStorage,
  layout: JournalLayout,
  { number, at, blocks, checksum }: Batch,
): Promise<Uint8Array> {
  const data = new Uint8Array(new ArrayBuffer(blocks * BLOCK_BYTES));
  const length = await storage.read(data, offsetOf(layout, number % layout.areas, at + 1));
  if (length !== data.length || checksumOf(data) !== checksum)
    throw new UserError(`${storage.name} has changed while it was read: attach the disk again`);
  return data;
}

/** A byte offset in the file. */
function offsetOf({ areaBlocks }: JournalLayout, area: number, block: number): number {
  return (HEADER_BLOCKS + area * areaBlocks + block) * BLOCK_BYTES;
}

/**
 * Each header is written twice, before anything that depends on it, so one copy replaces a damaged one. The first
 * header ever may be incomplete.
 */
async function readHeader(storage: JournalStorage): Promise<JournalHeader | undefined> {
  const blocks = new Uint8Array(new ArrayBuffer(HEADER_BLOCKS * BLOCK_BYTES));
  await storage.read(blocks, 0);
  const halves = [blocks.subarray(0, BLOCK_BYTES), blocks.subarray(BLOCK_BYTES)];
  const headers = halves
    .map((block) => decodeHeader(block, storage.name))
    .filter((found) => found !== undefined);
  const [newest] = headers.toSorted((a, b) => b.generation - a.generation);
  if (newest === undefined && !halves.some((block) => block.every((byte) => byte === 0)))
    throw damagedError(storage);
  return newest;
}

export function damagedError({ name }: JournalStorage): UserError {
  return new UserError(
    `the journal in ${name} is damaged: move it away to go on without the writes that only it holds`,
  );
}

function scanArea(area: Uint8Array, origin: string, batches: Batch[], strays: Batch[]): void {
  let number: number | undefined;
  let at = 0;
  for (let next = batchAt(area, at, origin); next !== undefined; next = batchAt(area, at, origin)) {
    number ??= next.number;
    if (next.number !== number || !isWhole(area, next)) break;
    batches.push(next);
    at += 1 + next.blocks;
  }
  for (; at < area.length / BLOCK_BYTES; at += 1) {
    const stray = batchAt(area, at, origin);
    if (stray !== undefined && isWhole(area, stray)) strays.push(stray);
  }
}

function batchAt(area: Uint8Array, at: number, origin: string): Batch | undefined {
  const batch = decodeBatch(area.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES));
  return batch?.at === at && batch.writer === origin ? batch : undefined;
}

function isWhole(area: Uint8Array, { at, blocks, checksum }: Batch): boolean {
  const data = area.subarray((at + 1) * BLOCK_BYTES, (at + 1 + blocks) * BLOCK_BYTES);
  return data.length === blocks * BLOCK_BYTES && checksumOf(data) === checksum;
}
