/**
 * Malformed input for the NBD server. Ends when it finds a fault, or after --count inputs.
 *
 *     bun run fuzz                        without end, with a random seed that it prints
 *     bun run fuzz --seed 7 --count 1000000
 */
import { parseArgs } from "node:util";
import { Fuzzer } from "./lib/fuzz.ts";

/** Inputs between two lines of progress. */
const ROUND = 500_000;
const MIB = 2 ** 20;

const { values } = parseArgs({ options: { seed: { type: "string" }, count: { type: "string" } } });
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed);
const count = values.count === undefined ? Number.POSITIVE_INFINITY : Number(values.count);
if (!Number.isSafeInteger(seed) || !(count > 0)) {
  console.error("fuzz: --seed and --count are whole numbers: try --seed 7 --count 1000000");
  process.exit(2);
}
console.log(`seed ${seed}`);
const fuzzer = new Fuzzer(seed);
for (let left = count; left > 0; left -= ROUND) {
  await fuzzer.run(Math.min(left, ROUND));
  const { verdicts, ...counts } = fuzzer.counts;
  const resident = Math.round(process.memoryUsage.rss() / MIB);
  console.log(JSON.stringify({ ...counts, ...verdicts, residentMiB: resident }));
}
