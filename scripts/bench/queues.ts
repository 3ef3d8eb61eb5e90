/**
 * What a second queue gains: fio, with a job on each of two processors, measures the same RAM disk served by one thread
 * and by several, in turn, on each driver. Prints a table. Where no processor is idle with one queue, a second one has
 * nothing to run on. Needs the drivers and the binary:
 *
 *     bun run build && scripts/vm --cpus 4 -- node_modules/.bin/bun scripts/bench/queues.ts [ROUNDS [SECONDS]]
 */
import { readFileSync } from "node:fs";
import { Failure } from "../lib/failure.ts";
import { type Attached, SIZE, tsbuse } from "./kernel-contestants.ts";
import { formatTable, median, rotate, spreadOfRatios } from "./statistics.ts";

const rounds = Number(Bun.argv[2] ?? 5);
const seconds = Number(Bun.argv[3] ?? 3);
const JOBS = 2;
/** Requests in flight, all jobs together. */
const DEPTH = 32;
/** The first and the last processor: neighbours may share a queue. */
const PINNED = [
  `--numjobs=${JOBS}`,
  `--cpus_allowed=0,${navigator.hardwareConcurrency - 1}`,
  "--cpus_allowed_policy=split",
  "--group_reporting",
];
const OPTIONS = ["--direct=1", "--ioengine=libaio", "--bs=4k", `--iodepth=${DEPTH / JOBS}`, ...PINNED];

interface Measured {
  /** Requests per second. */
  readonly rate: number;
  /** Idle processors, on average. */
  readonly idle: number;
}

/** Idle seconds of all processors since boot: proc_stat(5). */
function idleSeconds(): number {
  const [, , , , idle = 0, iowait = 0] = readFileSync("/proc/stat", "utf8").split(/\s+/, 6).map(Number);
  return (idle + iowait) / 100;
}

/** @throws Failure */
async function measure({ path }: Attached, mode: string, seed: number, runtime: number): Promise<Measured> {
  const times = ["--time_based", `--runtime=${runtime}`, "--ramp_time=1", `--randseed=${seed}`];
  const words = ["fio", "--name=job", `--filename=${path}`, `--rw=${mode}`, ...OPTIONS, ...times];
  const [began, idleBefore] = [performance.now(), idleSeconds()];
  const child = Bun.spawn([...words, "--output-format=json"], { stdio: ["ignore", "pipe", "inherit"] });
  const [text, status] = await Promise.all([child.stdout.text(), child.exited]);
  if (status !== 0) throw new Failure(`fio failed on ${path}`);
  const { read, write } = JSON.parse(text.slice(text.indexOf("{"))).jobs[0];
  const idle = (idleSeconds() - idleBefore) / ((performance.now() - began) / 1000);
  return { rate: read.iops + write.iops, idle };
}

const rows = [["4k, depth 32", "driver", "1 queue", "2 queues", "ratio", "min..max", "idle processors"]];
for (const driver of ["nbd", "ublk"]) {
  const start = (queues: number): Promise<Attached> =>
    tsbuse(`${queues}`, ["ramdisk", String(SIZE), driver, "--queues", `${queues}`]).attach("");
  await using one = await start(1);
  await using two = await start(2);
  for (const mode of ["randwrite", "randread"]) {
    const rates = new Map<Attached, Measured[]>([
      [one, []],
      [two, []],
    ]);
    // Round 0 warms up, longer than a measurement: each thread compiles the program for itself.
    for (let round = 0; round <= rounds; round += 1)
      for (const [device, list] of rotate([...rates], round)) {
        const measured = await measure(device, mode, round + 1, round === 0 ? 4 * seconds : seconds);
        if (round > 0) list.push(measured);
      }
    const all = [...rates.values()];
    const [single = [], several = []] = all.map((list) => list.map(({ rate }) => rate));
    const ratio = spreadOfRatios(several, single);
    const figures = [median(single), median(several)].map((rate) => rate.toFixed(0));
    const spread = `${ratio.min.toFixed(2)}..${ratio.max.toFixed(2)}`;
    const idle = all.map((list) => median(list.map((measured) => measured.idle)).toFixed(2)).join(", ");
    rows.push([mode, driver, ...figures, ratio.median.toFixed(2), spread, idle]);
  }
}
console.log(`${navigator.hardwareConcurrency} processors, ${rounds} rounds of ${seconds} s`);
console.log(formatTable(rows));
