/** The base device for tests of copy on write, and changes to it. */
import type { BlockDevice } from "../../src/device.ts";
import { pattern } from "./random.ts";
import { Shadow } from "./shadow.ts";

export const BLOCK = 512;
/** The last block of the overlay is a short one. */
export const SIZE = 16 * 4096 + 3 * BLOCK;
export const PLAIN = { fua: false };
export const HOLE = { fua: false, mayTrim: true };
export const NO_HOLE = { fua: false, mayTrim: false };
export const DATA = pattern(SIZE);

export function base(): Shadow {
  const shadow = new Shadow(SIZE);
  shadow.bytes.set(DATA);
  return shadow;
}

export async function contents(device: BlockDevice, length = SIZE): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xaa);
  await device.read(bytes, 0);
  return bytes;
}

/** The expected data after a change. */
export function changed(change: (bytes: Uint8Array) => unknown): Uint8Array {
  const bytes = DATA.slice();
  change(bytes);
  return bytes;
}

export const RANGES: readonly (readonly [offset: number, length: number])[] = [
  [0, BLOCK],
  [BLOCK, BLOCK],
  [4096, 4096],
  [4096 - BLOCK, 2 * BLOCK],
  [BLOCK, 4 * 4096],
  [3 * 4096 + BLOCK, 2 * BLOCK],
  [SIZE - BLOCK, BLOCK],
  [SIZE - 5 * BLOCK, 5 * BLOCK],
  [SIZE - 3 * BLOCK, 3 * BLOCK],
  [0, SIZE],
];
