/** Blocks that contain their own number. */
export const BLOCK_BYTES = 4096;
/** The maximum that fits the tests' file systems: running out of space would be a different error. */
export const BLOCKS_MAX = 6000;

export function blockOf(number: number): Uint8Array {
  return new Uint8Array(BLOCK_BYTES)
    .fill(number % 251)
    .fill(number >> 8, 0, 1)
    .fill(number & 0xff, 1, 2);
}

/** The first wrong one of `count` blocks; undefined if all are right. */
export function firstWrong(bytes: Uint8Array, count: number): number | undefined {
  for (let number = 0; number < count; number += 1) {
    const found = bytes.subarray(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
    if (Buffer.compare(found, blockOf(number)) !== 0) return number;
  }
  return undefined;
}
