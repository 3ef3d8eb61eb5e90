/** What a client writes: every sector has its block, its generation and its position in the block. */
import type { BlockState } from "./journal.ts";

export const SECTOR = 512;
const WORDS = SECTOR / 4;
const MAGIC = 0x746f_7274;
/** Words of a sector before the pattern: the magic number, the block, its generation, the sector. */
const HEADER_WORDS = 4;

/** Fills `target` with a block's contents in a generation; 0 is zeroes. */
export function fillBlock(target: Uint32Array, block: number, generation: number): void {
  for (let at = 0; at < target.length; at += WORDS) {
    fillSector(target.subarray(at, at + WORDS), block, generation, at / WORDS);
  }
}

function fillSector(target: Uint32Array, block: number, generation: number, sector: number): void {
  if (generation === 0) {
    target.fill(0);
    return;
  }
  target.set([MAGIC, block, generation, sector]);
  let word = Math.imul(block + 1, 0x9e37_79b1) ^ Math.imul(generation, 0x85eb_ca6b) ^ sector;
  for (let i = HEADER_WORDS; i < target.length; i += 1) {
    word = Math.imul(word, 0x0019_660d) + 0x3c6e_f35f;
    target[i] = word;
  }
}

/**
 * The fault of a block that was read, in words, or undefined. Every sector must have the acknowledged generation or a
 * later one that was begun. Sectors may differ in that, because a failed write may be torn.
 */
export function faultOf(found: Uint32Array, block: number, state: BlockState): string | undefined {
  const expected = new Uint32Array(WORDS);
  for (let at = 0; at < found.length; at += WORDS) {
    const sector = found.subarray(at, at + WORDS);
    const isZero = sector.every((word) => word === 0);
    const generation = isZero ? 0 : (sector[2] ?? 0);
    const place = `block ${block}, byte ${at * 4}`;
    if (generation < state.acknowledged)
      return `${place}: a write that was acknowledged is lost: generation ${generation} in place of ${state.acknowledged}`;
    if (generation > state.begun)
      return `${place}: generation ${generation} was never written: ${hex(sector)}`;
    fillSector(expected, block, generation, at / WORDS);
    if (sector.some((word, index) => word !== expected[index]))
      return `${place}: not what generation ${generation} is: ${hex(sector)}`;
  }
  return undefined;
}

function hex(words: Uint32Array): string {
  return [...words.subarray(0, 6)].map((word) => word.toString(16).padStart(8, "0")).join(" ");
}
