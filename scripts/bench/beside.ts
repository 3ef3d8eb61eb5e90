/**
 * What a change costs: the load generator measures two builds of tsbuse in turn, each a server on a Unix socket. The
 * figure is the server's processor time per request, the least of all rounds, because other work on the machine only
 * adds to it. Prints a table.
 *
 *     bun scripts/bench/beside.ts OLD NEW [ROUNDS [SECONDS [PART OF A NAME]]]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../lib/failure.ts";
import { buildLoad, runLoad } from "./load.ts";
import { cpuMicroseconds } from "./processes.ts";
import { placeOf, type RunningServer, type Server, SIZE, startServer, tsbuse } from "./servers.ts";
import { formatTable, median, rotate } from "./statistics.ts";

const [before, after] = Bun.argv.slice(2);
if (before === undefined || after === undefined)
  throw new Failure("which builds? give two paths: bun scripts/bench/beside.ts OLD NEW");
const rounds = Number(Bun.argv[4] ?? 20);
const seconds = Number(Bun.argv[5] ?? 0.5);
const wanted = Bun.argv[6] ?? "";
const DEVICES = { ramdisk: ["ramdisk", String(SIZE)], loop: ["loop", "FILE"] };
const SHAPES = [
  { mode: "randread", block: 4096, depth: 32 },
  { mode: "randwrite", block: 4096, depth: 32 },
  { mode: "randread", block: 4096, depth: 1 },
] as const;

const rows = [["processor time for each request", "before, µs", "after, µs", "ratio", "of medians"]];
const directory = mkdtempSync(join(tmpdir(), "tsbuse-beside-"));
try {
  await buildLoad();
  for (const [device, words] of Object.entries(DEVICES)) {
    await using old = await start(before, `${device}-before`, words);
    await using young = await start(after, `${device}-after`, words);
    for (const shape of SHAPES) {
      const name = `${device}, ${shape.mode} of 4 KiB, depth ${shape.depth}`;
      if (name.includes(wanted)) rows.push([name, ...(await compare(old, young, shape))]);
    }
  }
} finally {
  rmSync(directory, { recursive: true });
}
console.log(formatTable(rows));

function start(binary: string, id: string, words: readonly string[]): Promise<RunningServer> {
  const server = tsbuse(id, words);
  const command: Server["command"] = (place) => [binary, ...server.command(place).slice(1)];
  return startServer({ ...server, command }, placeOf(server, directory, directory));
}

async function compare(
  old: RunningServer,
  young: RunningServer,
  shape: (typeof SHAPES)[number],
): Promise<string[]> {
  const costs = new Map<RunningServer, number[]>([
    [old, []],
    [young, []],
  ]);
  for (let round = 0; round <= rounds; round += 1)
    for (const [{ pid, address }, list] of rotate([...costs], round)) {
      const effort = { seconds, warmSeconds: 0, seed: round + 1 };
      let cpu = -cpuMicroseconds(pid);
      const result = await runLoad(address, shape, effort, () => (cpu += cpuMicroseconds(pid)));
      // Round 0 warms up.
      if (round > 0 && result !== undefined) list.push(cpu / result.total);
    }
  const [first = [], second = []] = costs.values();
  const [least, leastAfter] = [Math.min(...first), Math.min(...second)];
  return [
    least.toFixed(3),
    leastAfter.toFixed(3),
    (leastAfter / least).toFixed(3),
    (median(second) / median(first)).toFixed(3),
  ];
}
