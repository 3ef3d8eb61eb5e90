/**
 * The kernel suite, run inside the guest, which has the drivers: attaches all devices of a group and measures them in
 * turn with fio. Prints its results as one line of JSON.
 *
 *     bun scripts/bench/kernel-guest.ts PLAN
 *
 * PLAN is the JSON of a KernelPlan.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { Failure } from "../lib/failure.ts";
import { type Cell, chooseCells, FILE_CELLS, makeCell, MEMORY_CELLS, PROMISE_CELLS } from "./cells.ts";
import { describeMachine } from "./facts.ts";
import {
  type Attached,
  brd,
  type KernelContestant,
  kernelLoop,
  nbdkit,
  qemuNbd,
  remotes,
  SIZE,
  tsbuse,
  tsbuseUblk,
  ublkInC,
} from "./kernel-contestants.ts";
import type { KernelOutput, KernelPlan } from "./kernel.ts";
import { cpuMicroseconds } from "./processes.ts";
import { contestantOf, type GroupResult } from "./results.ts";
import { runCourse, type Sample } from "./rounds.ts";
import { TSBUSE } from "./servers.ts";

/** Devices that are measured in turn. */
export interface KernelGroup {
  readonly id: string;
  readonly title: string;
  readonly cells: readonly Cell[];
  readonly contestants: readonly KernelContestant[];
}

const RAMDISK = ["ramdisk", String(SIZE)];
const LOOP = ["loop", "FILE"];
const MODULE = ["run", "scripts/bench/promise-device.ts", "NODE", "--"];

const GROUPS: readonly KernelGroup[] = [
  {
    id: "memory",
    title: "RAM disk (qemu-nbd and loop: a file on tmpfs)",
    cells: MEMORY_CELLS,
    contestants: [
      tsbuse("tsbuse", [...RAMDISK, "NODE"]),
      tsbuseUblk(RAMDISK),
      nbdkit("memory"),
      qemuNbd(),
      ublkInC(),
      brd(),
      kernelLoop(),
    ],
  },
  {
    id: "file",
    title: "file on tmpfs",
    cells: FILE_CELLS.filter(({ depth }) => depth > 1),
    contestants: [
      tsbuse("tsbuse", [...LOOP, "NODE"]),
      tsbuseUblk(LOOP),
      nbdkit("file"),
      qemuNbd(),
      kernelLoop(),
    ],
  },
  {
    id: "remote",
    title:
      "what nbdkit exports from memory on a Unix socket (nbd-client: no program between it and the kernel)",
    cells: FILE_CELLS,
    contestants: remotes(),
  },
  {
    id: "promises",
    title: "a module whose methods return promises, and the same one without",
    cells: PROMISE_CELLS,
    contestants: [
      tsbuse("promises", [...MODULE, "kind=promises"]),
      tsbuse("synchronous", [...MODULE, "kind=synchronous"], "peer"),
    ],
  },
];

const FILL = { mode: "write", block: 2 ** 20, depth: 8 } as const;
/**
 * The load that every contestant gets before the first cell: a just-in-time compiler takes seconds in an emulated
 * machine, and the suite measures how a server runs, not how it starts.
 */
const WARM_UP = [makeCell("mixed", 4, 32), makeCell("mixed", 4, 1)];
const WARM_UP_SECONDS = 2;
/** The length of the round that is not counted, as a part of one that is. */
const WARM_PART = 0.4;

/** fio(1)'s names. */
const RW = {
  randread: ["--rw=randread"],
  randwrite: ["--rw=randwrite"],
  read: ["--rw=read"],
  write: ["--rw=write"],
  mixed: ["--rw=randrw", "--rwmixread=70"],
  trim: ["--rw=randtrim"],
} as const;

/** The part of fio's JSON that we read, for each direction. */
interface FioDirection {
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns?: { readonly percentile?: Readonly<Record<string, number>> };
}

type FioJob = Readonly<Record<"read" | "write" | "trim", FioDirection>> & { readonly jobname: string };

/** What fio has measured on one device. */
type FioSample = Omit<Sample, "cpu"> & { readonly total: number };

/** One run of fio: devices by the name of their contestant, one after the other. @throws Failure */
async function fio(
  devices: ReadonlyMap<string, Attached>,
  { mode, block, depth }: Pick<Cell, "mode" | "block" | "depth">,
  extent: readonly string[],
): Promise<ReadonlyMap<string, FioSample>> {
  const common = [...RW[mode], `--bs=${block}`, `--iodepth=${depth}`, ...extent];
  const jobs = [...devices].flatMap(([id, { path }]) => [
    `--name=${id}`,
    `--filename=${path}`,
    "--stonewall",
  ]);
  const options = ["--direct=1", "--ioengine=libaio", "--thread", "--output-format=json"];
  const child = Bun.spawn(["fio", ...options, ...common, ...jobs], { stdio: ["ignore", "pipe", "pipe"] });
  const [text, complaint, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Failure(`fio failed at ${mode}: ${complaint.trim() || text.trim()}`);
  const output: { readonly jobs: readonly FioJob[] } = JSON.parse(text.slice(text.indexOf("{")));
  return new Map(output.jobs.map((job) => [job.jobname, fioSample(job)]));
}

function timeBased(seconds: number): readonly string[] {
  return ["--time_based", `--runtime=${Math.round(seconds * 1000)}ms`];
}

function fioSample({ read, write, trim }: FioJob): FioSample {
  const directions = [read, write, trim].filter(({ total_ios }) => total_ios > 0);
  const sum = (field: "iops" | "total_ios"): number => directions.reduce((all, one) => all + one[field], 0);
  // For a mixed load, the latencies of the more frequent direction.
  const most = directions.toSorted((a, b) => b.total_ios - a.total_ios)[0];
  const p50 = most?.clat_ns?.percentile?.["50.000000"];
  const p99 = most?.clat_ns?.percentile?.["99.000000"];
  return {
    rate: sum("iops"),
    total: sum("total_ios"),
    ...(p50 !== undefined && { p50: p50 / 1000 }),
    ...(p99 !== undefined && { p99: p99 / 1000 }),
  };
}

/** A round of a cell. An idle server uses no processor time, so all that it used was in its own turn. */
async function measureRound(
  devices: ReadonlyMap<string, Attached>,
  cell: Cell,
  plan: KernelPlan,
  round: number,
): Promise<Map<string, Sample>> {
  const able = new Map([...devices].filter(([, { path }]) => cell.mode !== "trim" || takesTrim(path)));
  const seconds = round === 0 ? plan.seconds * WARM_PART : plan.seconds;
  const extent = [...timeBased(seconds), `--randseed=${plan.seed + round}`];
  const before = cpuOfServers(able);
  const measured = await fio(able, cell, extent);
  const after = cpuOfServers(able);
  const samples = [...measured].map(([id, { total, ...sample }]): [string, Sample] => {
    const [from, to] = [before.get(id), after.get(id)];
    return [
      id,
      from === undefined || to === undefined ? sample : Object.assign(sample, { cpu: (to - from) / total }),
    ];
  });
  return new Map(samples);
}

function cpuOfServers(devices: ReadonlyMap<string, Attached>): Map<string, number> {
  const served = [...devices].flatMap(([id, { pid }]) => (pid === undefined ? [] : [{ id, pid }]));
  return new Map(served.map(({ id, pid }) => [id, cpuMicroseconds(pid)]));
}

function takesTrim(path: string): boolean {
  const limit = `/sys/block/${basename(path)}/queue/discard_max_bytes`;
  return Number(readFileSync(limit, "utf8")) > 0;
}

/** Attaches all contestants of a group that exist here, and measures them. */
export async function runGroup(group: KernelGroup, plan: KernelPlan): Promise<GroupResult | undefined> {
  const { id, title } = group;
  const filter = plan.filter === undefined ? undefined : new RegExp(plan.filter);
  const cells = chooseCells(group.cells, id, { quick: plan.quick, filter });
  if (cells.length === 0) return undefined;
  await using stack = new AsyncDisposableStack();
  const attached = new Map<string, Attached>();
  const contestants: KernelContestant[] = [];
  for (const contestant of group.contestants) {
    if ((await contestant.isThere?.()) === false) continue;
    const one = stack.use(await contestant.attach(`/dev/nbd${contestants.length}`));
    attached.set(contestant.id, one);
    contestants.push(contestant);
    const alone = new Map([[contestant.id, one]]);
    await fio(alone, FILL, []);
    for (const cell of WARM_UP) await fio(alone, cell, timeBased(WARM_UP_SECONDS));
  }
  const results = await runCourse({
    group: id,
    cells,
    contestants,
    rounds: plan.rounds,
    measure: (order, cell, round) => {
      const devices = order.flatMap(({ id: name }) => {
        const one = attached.get(name);
        return one === undefined ? [] : [[name, one] as const];
      });
      return measureRound(new Map(devices), cell, plan, round);
    },
  });
  return {
    id,
    title,
    contestants: contestants.map(contestantOf),
    cells: results,
  };
}

async function main(plan: KernelPlan): Promise<void> {
  const groups: GroupResult[] = [];
  for (const group of GROUPS) {
    const result = await runGroup(group, plan);
    if (result !== undefined) groups.push(result);
  }
  const machine = await describeMachine({
    tsbuse: [TSBUSE, "--version"],
    nbdkit: ["nbdkit", "--version"],
    "nbd-client": ["nbd-client", "-V"],
    "qemu-nbd": ["qemu-nbd", "--version"],
    fio: ["fio", "--version"],
  });
  console.log(JSON.stringify({ machine, groups } satisfies KernelOutput));
}

if (import.meta.main) {
  try {
    await main(JSON.parse(process.argv[2] ?? "{}"));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    console.error(`bench: ${error.message}`);
    process.exit(1);
  }
}
