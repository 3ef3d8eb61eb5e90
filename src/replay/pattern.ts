/** The bytes of writes whose bytes were not recorded: each sector is filled with its number. */
import { SECTOR } from "../record/format.ts";

const WORDS = SECTOR / Uint32Array.BYTES_PER_ELEMENT;

/** @param target whole sectors, at a multiple of 4 in its memory. @param offset on the disk, in bytes. */
export function fillPattern(target: Uint8Array, offset: number): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.byteLength / 4);
  for (let at = 0; at < words.length; at += WORDS)
    words.fill((offset / SECTOR + at / WORDS) >>> 0, at, at + WORDS);
}
