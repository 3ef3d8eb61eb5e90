/**
 * Dirties memory over and over, and checks it: a process that swap-session.sh starts. Touches one word of each page, so
 * that the disk has more to do than the processor. Ends when the file ENOUGH exists.
 *
 * Usage: bun swap-writer.ts NUMBER MIB ENOUGH; prints the number of rounds, exits with 1 if a page is wrong.
 */
import { existsSync } from "node:fs";

const PAGE_WORDS = 1024;
const MIB_WORDS = 2 ** 18;

const [number = 0, mib = 1] = process.argv.slice(2, 4).map(Number);
const enough = process.argv[4] ?? "";

const words = new Uint32Array(mib * MIB_WORDS);
const pages = words.length / PAGE_WORDS;
/** Every other round goes in leaps; odd, so that it still visits each page once. */
const LEAP = 7919;

let rounds = 0;
let wrong = 0;
while (!existsSync(enough)) {
  for (let step = 0; step < pages; step += 1) {
    const page = rounds % 2 === 0 ? step : (step * LEAP) % pages;
    const at = page * PAGE_WORDS;
    if (words[at] !== stamp(page, rounds)) wrong += 1;
    words[at] = stamp(page, rounds + 1);
  }
  rounds += 1;
}
console.log(`${rounds}`);
process.exit(wrong === 0 ? 0 : 1);

/** The word of a page after `round` rounds; 0 before the first one. */
function stamp(page: number, round: number): number {
  return round === 0 ? 0 : (number * 0x1000000 + page * 64 + (round % 64)) >>> 0;
}
