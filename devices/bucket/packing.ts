/** Chunks of segments, compressed where that pays. */
import { DamageError, checksumOf, type Chunk, type ChunkTable } from "./format.ts";
import { BLOCK_BYTES, CHUNK_BLOCKS } from "./parts.ts";

export const CHUNK_BYTES = BLOCK_BYTES * CHUNK_BLOCKS;
/** The fastest that is worth it: the network is faster than the others. */
const LEVEL = 1;
/** What is saved must be worth the time to unpack. */
const PAYS = 0.9;

/** The chunks of a segment's blocks; those that are not compressed lie in `blocks`. */
export function pack(blocks: Uint8Array, compress: boolean): Promise<Chunk[]> {
  const chunks: Promise<Chunk>[] = [];
  for (let at = 0; at < blocks.length; at += CHUNK_BYTES)
    chunks.push(packChunk(blocks.subarray(at, at + CHUNK_BYTES), compress));
  return Promise.all(chunks);
}

async function packChunk(bytes: Uint8Array, compress: boolean): Promise<Chunk> {
  if (!compress) return { bytes, isCompressed: false };
  const packed = await Bun.zstdCompress(bytes, { level: LEVEL });
  return packed.length < bytes.length * PAYS
    ? { bytes: packed, isCompressed: true }
    : { bytes, isCompressed: false };
}

/**
 * The blocks of a chunk.
 * @param bytes as they are in the object.
 * @throws DamageError
 */
export async function unpack(bytes: Uint8Array, table: ChunkTable, chunk: number): Promise<Uint8Array> {
  if (checksumOf(bytes) !== table.checksums[chunk]) throw new DamageError("has a wrong checksum");
  if (table.compressed[chunk] !== 1) return bytes;
  return Bun.zstdDecompress(bytes);
}
