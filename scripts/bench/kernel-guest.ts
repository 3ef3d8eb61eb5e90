/**
 * The kernel suite, run where the drivers are: devices attached at once, measured in turn by fio. Prints what it found
 * as one line of JSON.
 *
 *     bun scripts/bench/kernel-guest.ts PLAN
 *
 * PLAN is the JSON of a KernelPlan.
 */
import { Failure } from "../lib/failure.ts";
import { type Cell, chooseCells, FILE_CELLS, MEMORY_CELLS, PROMISE_CELLS } from "./cells.ts";
import { describeMachine } from "./facts.ts";
import {
  type Attached,
  brd,
  type KernelContestant,
  kernelLoop,
  nbdkit,
  qemuNbd,
  SIZE,
  tsbuse,
  tsbuseUblk,
} from "./kernel-contestants.ts";
import type { KernelOutput, KernelPlan } from "./kernel.ts";
import { cpuMicroseconds } from "./processes.ts";
import type { GroupResult } from "./results.ts";
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
/** Of what is counted: the part that the round has which is not. */
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

/** The part of fio's JSON that is looked at, of each direction. */
interface FioDirection {
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns?: { readonly percentile?: Readonly<Record<string, number>> };
}

interface FioOutput {
  readonly jobs: readonly [Readonly<Record<"read" | "write" | "trim", FioDirection>>];
}

/** One run of fio: requests per second, their number, and latencies. @throws Failure */
async function fio(
  path: string,
  { mode, block, depth }: Pick<Cell, "mode" | "block" | "depth">,
  extent: readonly string[],
): Promise<Sample & { readonly total: number }> {
  const child = Bun.spawn(
    [
      "fio",
      "--name=bench",
      `--filename=${path}`,
      ...RW[mode],
      `--bs=${block}`,
      `--iodepth=${depth}`,
      "--direct=1",
      "--ioengine=libaio",
      "--thread",
      "--randrepeat=1",
      ...extent,
      "--output-format=json",
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const [text, complaint, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Failure(`fio failed on ${path}: ${complaint.trim() || text.trim()}`);
  const output: FioOutput = JSON.parse(text.slice(text.indexOf("{")));
  const { read, write, trim } = output.jobs[0];
  const directions = [read, write, trim].filter(({ total_ios }) => total_ios > 0);
  const sum = (field: "iops" | "total_ios"): number => directions.reduce((all, one) => all + one[field], 0);
  // Of a mixed load, the latencies of what there is most of.
  const percentile = directions.toSorted((a, b) => b.total_ios - a.total_ios)[0]?.clat_ns?.percentile ?? {};
  const p50 = percentile["50.000000"];
  const p99 = percentile["99.000000"];
  return {
    rate: sum("iops"),
    total: sum("total_ios"),
    ...(p50 !== undefined && { p50: p50 / 1000 }),
    ...(p99 !== undefined && { p99: p99 / 1000 }),
  };
}

async function measureCell(
  { path, pid }: Attached,
  cell: Cell,
  plan: KernelPlan,
  round: number,
): Promise<Sample> {
  const seconds = round === 0 ? plan.seconds * WARM_PART : plan.seconds;
  const extent = [
    "--time_based",
    `--runtime=${Math.round(seconds * 1000)}ms`,
    `--randseed=${plan.seed + round}`,
  ];
  const before = pid === undefined ? 0 : cpuMicroseconds(pid);
  const { total, ...sample } = await fio(path, cell, extent);
  return { ...sample, ...(pid !== undefined && { cpu: (cpuMicroseconds(pid) - before) / total }) };
}

/** Attaches all contestants of a group that are there, and measures them. */
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
    await fio(one.path, FILL, []);
  }
  const results = await runCourse({
    group: id,
    cells,
    contestants,
    rounds: plan.rounds,
    measure: async (contestant, cell, round) => {
      const one = attached.get(contestant.id);
      return one === undefined ? undefined : measureCell(one, cell, plan, round);
    },
  });
  return {
    id,
    title,
    contestants: contestants.map((one) => ({ id: one.id, kind: one.kind })),
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
