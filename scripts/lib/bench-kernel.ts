/**
 * The kernel benchmark, run where the nbd driver is: a RAM disk of tsbuse beside nbdkit's memory plugin behind
 * nbd-client, both attached at once, measured in turn by fio. Prints the median of the rounds and the median ratio.
 *
 *     bun scripts/lib/bench-kernel.ts ROUNDS SECONDS
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { formatTable, median, medianRatio } from "./statistics.ts";

const ROOT = join(import.meta.dir, "../..");
const SIZE = "256M";
const SOCKET = "/run/tsbuse-bench-nbdkit.sock";
const START_LIMIT_MS = 20_000;

const WORKLOADS = [
  { name: "4k random read, depth 1", rw: "randread", blockSize: "4k", depth: 1 },
  { name: "4k random write, depth 1", rw: "randwrite", blockSize: "4k", depth: 1 },
  { name: "4k random read, depth 32", rw: "randread", blockSize: "4k", depth: 32 },
  { name: "4k random write, depth 32", rw: "randwrite", blockSize: "4k", depth: 32 },
  { name: "128k read, depth 8", rw: "read", blockSize: "128k", depth: 8 },
  { name: "128k write, depth 8", rw: "write", blockSize: "128k", depth: 8 },
] as const;

interface Workload {
  readonly name: string;
  readonly rw: string;
  readonly blockSize: string;
  readonly depth: number;
}

const DEPTH_32 = WORKLOADS.filter(({ depth }) => depth === 32);
const FILL: Workload = { name: "fill", rw: "write", blockSize: "128k", depth: 8 };
const WARM_UP: Workload = WORKLOADS[2];

/** A server with its device attached. */
interface Contestant {
  readonly path: string;
  stop(): Promise<void>;
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + START_LIMIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${START_LIMIT_MS} ms: ${what}`);
    await Bun.sleep(10);
  }
}

function isAttached(path: string): boolean {
  return existsSync(`/sys/block/${path.slice("/dev/".length)}/pid`);
}

async function startTsbuse(path: string, words: readonly string[]): Promise<Contestant> {
  const [command = "", ...rest] = words;
  const server = Bun.spawn([join(ROOT, "dist/tsbuse"), command, ...rest, path], {
    stdout: "ignore",
    stderr: "inherit",
  });
  await until("tsbuse is attached", () => isAttached(path));
  return {
    path,
    stop: async () => {
      server.kill("SIGTERM");
      await server.exited;
    },
  };
}

async function startNbdkit(path: string): Promise<Contestant> {
  const server = Bun.spawn(["nbdkit", "--foreground", "--unix", SOCKET, "memory", SIZE], {
    stdout: "ignore",
    stderr: "inherit",
  });
  await until("nbdkit listens", () => existsSync(SOCKET));
  await Bun.spawn(["nbd-client", "-unix", SOCKET, path], { stdout: "ignore", stderr: "ignore" }).exited;
  await until("nbd-client is attached", () => isAttached(path));
  return {
    path,
    stop: async () => {
      await Bun.spawn(["nbd-client", "-d", path], { stdout: "ignore", stderr: "ignore" }).exited;
      server.kill("SIGTERM");
      await server.exited;
    },
  };
}

/** I/O operations per second of one run of fio. */
async function measure(path: string, workload: Workload, seconds: number): Promise<number> {
  const { rw, blockSize, depth } = workload;
  const fio = Bun.spawn(
    [
      "fio",
      "--name=bench",
      `--filename=${path}`,
      `--rw=${rw}`,
      `--bs=${blockSize}`,
      `--iodepth=${depth}`,
      "--direct=1",
      "--ioengine=libaio",
      "--time_based",
      `--runtime=${seconds}`,
      "--output-format=terse",
      "--terse-version=3",
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  const fields = (await fio.stdout.text()).trim().split(";");
  if ((await fio.exited) !== 0) throw new Error(`fio failed on ${path}`);
  // fio(1), terse format version 3: field 8 is read IOPS, field 49 write IOPS.
  return Number(rw.endsWith("read") ? fields[7] : fields[48]);
}

/** A table of `ours` beside `theirs`, measured in turn; both are stopped in the end. */
async function compare(
  ours: Contestant,
  theirs: Contestant,
  names: readonly [string, string],
  workloads: readonly Workload[],
  { rounds, seconds }: { readonly rounds: number; readonly seconds: number },
): Promise<string> {
  try {
    // The first workload after an attach reads low, for whoever is first; memory is allocated as well.
    for (const { path } of [ours, theirs]) {
      await measure(path, FILL, 3);
      await measure(path, WARM_UP, 2);
    }
    const rows = [["IOPS", ...names, "ratio"]];
    for (const workload of workloads) {
      const our: number[] = [];
      const their: number[] = [];
      for (let round = 0; round < rounds; round += 1) {
        our.push(await measure(ours.path, workload, seconds));
        their.push(await measure(theirs.path, workload, seconds));
      }
      const ratio = medianRatio(our, their).toFixed(2);
      rows.push([workload.name, median(our).toFixed(0), median(their).toFixed(0), ratio]);
    }
    return formatTable(rows);
  } finally {
    await ours.stop();
    await theirs.stop();
  }
}

async function main(rounds: number, seconds: number): Promise<void> {
  const effort = { rounds, seconds };
  const ramdisk = await startTsbuse("/dev/nbd0", ["ramdisk", SIZE]);
  const nbdkit = await startNbdkit("/dev/nbd1");
  console.log(await compare(ramdisk, nbdkit, ["tsbuse", "nbdkit + nbd-client"], WORKLOADS, effort));
  // The layer hides that the RAM disk is memory: both are asked by their methods.
  const promises = await startTsbuse("/dev/nbd0", ["run", "scripts/lib/bench-device.ts"]);
  const synchronous = await startTsbuse("/dev/nbd1", ["ramdisk", SIZE, "--layer", "stats"]);
  console.log(await compare(promises, synchronous, ["promises", "synchronous"], DEPTH_32, effort));
}

const [rounds = "5", seconds = "3"] = process.argv.slice(2);
await main(Number(rounds), Number(seconds));
