/** Repeatable random numbers: every random test prints its seed, and TSBUSE_SEED sets it. */

import { Random } from "../../src/values/random.ts";

export { Random };

/** The seed of this run. */
export function chooseSeed(test: string): number {
  const wanted = process.env["TSBUSE_SEED"];
  const seed = wanted === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(wanted);
  if (!Number.isSafeInteger(seed)) throw new Error(`TSBUSE_SEED=${wanted} is not a whole number`);
  console.log(`${test}: TSBUSE_SEED=${seed}`);
  return seed;
}

/** Bytes that differ from others at every distance that an off-by-a-block mistake causes. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return new Random(seed).bytes(length);
}

/** Likewise, but faster: repetitions are never a power of two apart. */
export function longPattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const noise = pattern(Math.min(length, 127 * 512), seed);
  for (let at = 0; at < length; at += noise.length) bytes.set(noise.subarray(0, length - at), at);
  return bytes;
}
