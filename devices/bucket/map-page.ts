/**
 * A page of a checkpoint: the part of a block map that covers 256 MiB of the disk. It names segments by their numbers,
 * so every map understands it. All numbers are little-endian.
 *
 *     0  8  "tsbusemp"
 *     8  4  the format: 1
 *    12  4  segments
 *    16  4  runs
 *    20  4  runs that are not holes
 *    24  8  the first block
 *    32  8  xxHash3 of the rest of the page, seeded with the hash of the 32 bytes before it
 *    40     compressed by zstd, words of 4 bytes:
 *           for each segment the difference between its number and the previous one, which is 0 for the first;
 *           for each run 2 * its blocks, plus 1 unless it is a hole;
 *           for each run that is not a hole 4096 * the index of its segment in this list, plus its first slot
 */
import { type BlockMapShape, SEGMENT_BLOCKS_MAX } from "./parts.ts";

const MAGIC = 0x706d_6573_7562_7374n;
const FORMAT = 1;
const AT = { magic: 0, format: 8, segments: 12, runs: 16, places: 20, first: 24, checksum: 32 } as const;
const HEADER_BYTES = 40;
const WORD_BYTES = 4;
/** Random places do not compress further: more effort is wasted. */
const LEVEL = 1;

/** A page, decoded. */
export interface MapPage {
  /** The first block. */
  readonly first: number;
  /** The numbers of the segments in which the blocks lie. */
  readonly segments: Uint32Array;
  /** 2 * the blocks of each run, plus 1 unless they are holes. */
  readonly runs: Uint32Array;
  /** For each run that is not a hole: 4096 * the index of its segment in `segments`, plus its first slot. */
  readonly places: Uint32Array;
}

interface Source extends Pick<BlockMapShape, "find" | "foundIndex" | "foundSlot" | "segmentNumber"> {
  segmentIndex(number: number): number | undefined;
}

/**
 * The page of `count` blocks from `first` on.
 * @param indexes a bound: every index of a segment is below it.
 */
export function encodePage(
  map: Source,
  first: number,
  count: number,
  indexes: number,
): Uint8Array<ArrayBuffer> {
  const end = first + count;
  /** 1 + the rank by number of each segment in the page, by its index; 0 for segments that are not in it. */
  const ranks = new Uint32Array(indexes);
  const numbers: number[] = [];
  let [runs, places] = [0, 0];
  for (let block = first; block < end; runs += 1) {
    block += map.find(block, end - block);
    if (map.foundIndex < 0) continue;
    places += 1;
    if (ranks[map.foundIndex] === 0)
      ranks[map.foundIndex] = numbers.push(map.segmentNumber(map.foundIndex) ?? 0);
  }
  const sorted = Uint32Array.from(numbers).toSorted();
  for (const [rank, number] of sorted.entries()) ranks[map.segmentIndex(number) ?? 0] = 1 + rank;
  const words = new Uint32Array(sorted.length + runs + places);
  for (const [rank, number] of sorted.entries()) words[rank] = number - (sorted[rank - 1] ?? 0);
  let [run, place] = [sorted.length, sorted.length + runs];
  for (let block = first; block < end;) {
    const length = map.find(block, end - block);
    const isData = map.foundIndex >= 0;
    words[run++] = 2 * length + (isData ? 1 : 0);
    if (isData) words[place++] = ((ranks[map.foundIndex] ?? 0) - 1) * SEGMENT_BLOCKS_MAX + map.foundSlot;
    block += length;
  }
  return assemble(first, [sorted.length, runs, places], words);
}

function assemble(
  first: number,
  counts: readonly number[],
  words: Uint32Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const packed = Bun.zstdCompressSync(words, { level: LEVEL });
  const page = new Uint8Array(new ArrayBuffer(HEADER_BYTES + packed.length));
  const header = new DataView(page.buffer);
  header.setBigUint64(AT.magic, MAGIC, true);
  header.setUint32(AT.format, FORMAT, true);
  for (const [index, count] of counts.entries())
    header.setUint32(AT.segments + index * WORD_BYTES, count, true);
  header.setBigUint64(AT.first, BigInt(first), true);
  page.set(packed, HEADER_BYTES);
  header.setBigUint64(AT.checksum, checksumOf(page), true);
  return page;
}

/**
 * @param blocks of the disk.
 * @throws Error for a page that is damaged, too new, or of another disk.
 */
export function decodePage(page: Uint8Array, blocks: number): MapPage {
  const header = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (page.length < HEADER_BYTES || header.getBigUint64(AT.magic, true) !== MAGIC)
    throw new Error("not a page of a block map");
  const format = header.getUint32(AT.format, true);
  if (format !== FORMAT)
    throw new Error(`a block map of format ${format}: a newer version of tsbuse has written it`);
  if (header.getBigUint64(AT.checksum, true) !== checksumOf(page))
    throw new Error("a page of the block map has a wrong checksum");
  const first = Number(header.getBigUint64(AT.first, true));
  const segments = header.getUint32(AT.segments, true);
  const places = segments + header.getUint32(AT.runs, true);
  const words = unpack(page, places + header.getUint32(AT.places, true));
  const runs = words.subarray(segments, places);
  if (runs.reduce((end, run) => end + (run >>> 1), first) > blocks)
    throw new Error("a page of the block map goes beyond the end of the disk");
  return { first, segments: summed(words.subarray(0, segments)), runs, places: words.subarray(places) };
}

function unpack(page: Uint8Array, words: number): Uint32Array {
  const bytes = Bun.zstdDecompressSync(page.slice(HEADER_BYTES));
  if (bytes.length !== words * WORD_BYTES) throw new Error("a page of the block map has a wrong length");
  return new Uint32Array(bytes.buffer, bytes.byteOffset, words);
}

/** Replaces each difference by the number itself, in place. */
function summed(words: Uint32Array): Uint32Array {
  let sum = 0;
  return words.map((word) => (sum += word));
}

function checksumOf(page: Uint8Array): bigint {
  return Bun.hash.xxHash3(page.subarray(HEADER_BYTES), Bun.hash.xxHash3(page.subarray(0, AT.checksum)));
}
