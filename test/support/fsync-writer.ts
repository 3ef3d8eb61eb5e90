/**
 * Writes blocks to a file, and syncs each before the next: `bun fsync-writer.ts FILE STOP`. Ends when STOP exists, and
 * prints how many were synced and how long the slowest took, as JSON. Ends with an exception if one fails.
 */
import { existsSync, fsyncSync, openSync, writeSync } from "node:fs";
import { BLOCK_BYTES, blockOf, BLOCKS_MAX } from "./synced-blocks.ts";

const [, , file = "", stop = ""] = process.argv;
const fd = openSync(file, "w+");
let synced = 0;
let longestMs = 0;
while (!existsSync(stop) && synced < BLOCKS_MAX) {
  const began = performance.now();
  writeSync(fd, blockOf(synced), 0, BLOCK_BYTES, synced * BLOCK_BYTES);
  fsyncSync(fd);
  longestMs = Math.max(longestMs, performance.now() - began);
  synced += 1;
}
console.log(JSON.stringify({ synced, longestMs }));
