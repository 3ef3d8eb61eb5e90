/** Distinguishes records, and base images of the same size, by their contents. */
import { dataRuns } from "../../crash/data-runs.ts";
import { unwrap } from "../../libc/errno.ts";
import { pread } from "../../libc/file.ts";

/** Raised when states get other numbers. */
const VERSION = 2;
const PIECE_BYTES = 2 ** 20;

/**
 * @param base open for reading; undefined: zeroes. A hole counts as zeroes.
 * @param words anything else that matters.
 * @throws ErrnoError
 */
export function fingerprintOf(
  record: Uint8Array,
  base: number | undefined,
  words: readonly string[],
): string {
  const hash = new Bun.CryptoHasher("sha256");
  hash.update(JSON.stringify([VERSION, record.length, ...words]));
  hash.update(record);
  if (base !== undefined) addPieces(hash, base);
  return hash.digest("hex");
}

function addPieces(hash: Bun.CryptoHasher, fd: number): void {
  const buffer = new Uint8Array(new ArrayBuffer(PIECE_BYTES));
  const zeroes = new Uint8Array(new ArrayBuffer(PIECE_BYTES));
  const places = new Set<number>();
  for (const { first, end } of dataRuns(fd))
    for (let at = first - (first % PIECE_BYTES); at < end; at += PIECE_BYTES) places.add(at);
  for (const at of places) {
    const piece = buffer.subarray(0, unwrap(pread(fd, buffer, at), "pread"));
    if (Buffer.compare(piece, zeroes.subarray(0, piece.length)) !== 0) hash.update(`${at} `).update(piece);
  }
}
