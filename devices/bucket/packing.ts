/** Chunks of segments, compressed where that saves enough. */
import { DamageError, checksumOf, type Chunk, type ChunkTable } from "./format.ts";
import { BLOCK_BYTES, CHUNK_BLOCKS } from "./parts.ts";

export const CHUNK_BYTES = BLOCK_BYTES * CHUNK_BLOCKS;
/** The fastest level that saves enough: the others are slower than the network. */
const LEVEL = 1;
/** A smaller saving is not worth the time to decompress. */
const PAYS = 0.9;
/** One chunk in this many is tried first: data that is compressed or encrypted already comes in long runs. */
const SAMPLE = 8;
/** Up to this many chunks are compressed on this thread: a flush waits for them, and starting a thread takes longer. */
const FEW = 2;

/** The chunks of a segment's blocks. Those that are not compressed lie in `blocks`. */
export async function pack(blocks: Uint8Array, compress: boolean): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for (let at = 0; at < blocks.length; at += CHUNK_BYTES)
    chunks.push({ bytes: blocks.subarray(at, at + CHUNK_BYTES), isCompressed: false });
  if (!compress) return chunks;
  if (chunks.length <= FEW)
    return chunks.map(({ bytes }) => smaller(bytes, Bun.zstdCompressSync(bytes, { level: LEVEL })));
  const samples = await Promise.all(chunks.filter(isSample).map(packChunk));
  const pays = samples.some(({ isCompressed }) => isCompressed);
  return Promise.all(
    chunks.map((chunk, index) => samples[index / SAMPLE] ?? (pays ? packChunk(chunk) : chunk)),
  );
}

function isSample(_: Chunk, index: number): boolean {
  return index % SAMPLE === 0;
}

async function packChunk({ bytes }: Chunk): Promise<Chunk> {
  return smaller(bytes, await Bun.zstdCompress(bytes, { level: LEVEL }));
}

function smaller(bytes: Uint8Array, packed: Uint8Array): Chunk {
  const pays = packed.length < bytes.length * PAYS;
  return { bytes: pays ? packed : bytes, isCompressed: pays };
}

/**
 * The blocks of a chunk.
 * @param bytes as stored in the object.
 * @throws DamageError
 */
export async function unpack(bytes: Uint8Array, table: ChunkTable, chunk: number): Promise<Uint8Array> {
  if (checksumOf(bytes) !== table.checksums[chunk]) throw new DamageError("has a wrong checksum");
  if (table.compressed[chunk] !== 1) return bytes;
  return Bun.zstdDecompress(bytes);
}
