/** The native suite: servers as processes of their own on Unix sockets, each driven by the same load generator. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../lib/suites.ts";
import {
  type Cell,
  makeCell,
  chooseCells,
  DIRECT_CELLS,
  FILE_CELLS,
  MEMORY_CELLS,
  PROMISE_CELLS,
} from "./cells.ts";
import type { Plan } from "./options.ts";
import { type Effort, measureReady, runLoad } from "./load.ts";
import { cpuMicroseconds, peakResidentBytes } from "./processes.ts";
import { contestantOf, type Footprint, type GroupResult } from "./results.ts";
import { runCourse, type Sample } from "./rounds.ts";
import {
  addressOf,
  endDetached,
  nbdInC,
  nbdkit,
  nbdServer,
  nullServer,
  placeOf,
  qemuNbd,
  readyCommand,
  type RunningServer,
  type Server,
  SIZE,
  startServer,
  tsbuse,
} from "./servers.ts";
import { rotate } from "./statistics.ts";

const MIB = 2 ** 20;
const TMPFS = "/dev/shm";
const DISK = join(ROOT, "dist/bench");
const DEVICE = join(import.meta.dir, "promise-device.ts");

/** Servers that are measured in turn. */
export interface NativeGroup {
  readonly id: string;
  readonly title: string;
  /** The directory of the images, for servers that need one. */
  readonly images: string;
  readonly cells: readonly Cell[];
  readonly servers: readonly Server[];
  /** Whether to measure memory and the time to readiness as well. */
  readonly footprint: boolean;
}

export const NATIVE_GROUPS: readonly NativeGroup[] = [
  {
    id: "memory",
    title: "RAM disk (qemu-nbd and nbd-server: a file on tmpfs)",
    images: TMPFS,
    cells: MEMORY_CELLS,
    servers: [
      tsbuse("tsbuse", ["ramdisk", String(SIZE)], SIZE),
      nbdkit("memory"),
      qemuNbd(),
      nbdServer(),
      nbdInC(),
      nullServer(),
    ],
    footprint: true,
  },
  {
    id: "file",
    title: "file on a disk, in the page cache",
    images: DISK,
    cells: FILE_CELLS,
    servers: [tsbuse("tsbuse", ["loop", "FILE"]), nbdkit("file"), qemuNbd(), nbdServer()],
    footprint: false,
  },
  {
    id: "direct",
    title: "file on a disk, around the page cache (nbdkit and nbd-server cannot)",
    images: DISK,
    cells: DIRECT_CELLS,
    servers: [
      tsbuse("tsbuse", ["loop", "FILE", "--direct", "--block-size", "4096"]),
      qemuNbd(["--cache", "none", "--aio", "native"]),
    ],
    footprint: false,
  },
];

/** What promises cost: one module, whose methods return promises or do not. */
export const ASYNC_GROUPS: readonly NativeGroup[] = [
  {
    id: "promises",
    title: "a module whose methods return promises, and the same one without",
    images: TMPFS,
    cells: PROMISE_CELLS,
    servers: [
      promiseServer("promises", "ours"),
      promiseServer("synchronous", "peer"),
      { ...tsbuse("tsbuse", ["ramdisk", String(SIZE)]), id: "ramdisk", kind: "ceiling" },
    ],
    footprint: false,
  },
  {
    id: "sleeping",
    title: "a module that sleeps 10 ms over each read",
    images: TMPFS,
    cells: [makeCell("randread", 4, 64)],
    servers: [promiseServer("sleeping", "ours")],
    footprint: false,
  },
];

function promiseServer(id: "promises" | "synchronous" | "sleeping", kind: Server["kind"]): Server {
  const server = tsbuse(id, ["run", DEVICE]);
  return { ...server, kind, command: (place) => [...server.command(place), "--", `kind=${id}`] };
}

const FILL_EFFORT: Effort = { seconds: 0, warmSeconds: 0, seed: 1 };
const FILL = { mode: "fill", block: MIB, depth: 8 } as const;
const LARGEST = { mode: "mixed", block: MIB, depth: 128 } as const;
/** Parts of the counted time: the warm-up of each connection, and the length of the round that is not counted. */
const WARM_PART = 0.1;
const WARM_ROUND_PART = 0.4;

/** Runs the groups, one after the other. */
export async function runNative(
  groups: readonly NativeGroup[],
  plan: Plan,
): Promise<{ readonly groups: GroupResult[]; readonly footprints: Record<string, Footprint> }> {
  const results: GroupResult[] = [];
  const footprints: Record<string, Footprint> = {};
  for (const group of groups) {
    const cells = chooseCells(group.cells, group.id, plan);
    if (cells.length === 0) continue;
    const directory = mkdtempSync(join(tmpdir(), "tsbuse-bench-"));
    const images = mkdtempSync(join(group.images, "tsbuse-bench-"));
    try {
      results.push(await runGroup(group, cells, plan, [directory, images], footprints));
    } finally {
      for (const path of [directory, images]) rmSync(path, { recursive: true });
    }
  }
  return { groups: results, footprints };
}

async function runGroup(
  group: NativeGroup,
  cells: readonly Cell[],
  plan: Plan,
  [directory, images]: readonly [string, string],
  footprints: Record<string, Footprint>,
): Promise<GroupResult> {
  const { id, title, servers } = group;
  const resident: Record<string, number> = {};
  await using stack = new AsyncDisposableStack();
  const running = new Map<string, RunningServer>();
  for (const server of servers) {
    const one = stack.use(await startServer(server, placeOf(server, directory, images)));
    running.set(server.id, one);
    await runLoad(one.address, FILL, FILL_EFFORT);
  }
  const results = await runCourse({
    group: id,
    cells,
    contestants: servers,
    rounds: plan.rounds,
    measure: async (order, cell, round) => {
      const samples = new Map<string, Sample>();
      for (const server of order) {
        const one = running.get(server.id);
        const sample = one === undefined ? undefined : await measureCell(one, cell, plan, round);
        if (sample !== undefined) samples.set(server.id, sample);
      }
      return samples;
    },
  });
  if (group.footprint && plan.footprints) {
    for (const one of running.values())
      if (hasFootprint(one.server)) resident[one.server.id] = await measureResident(one, plan);
  }
  await stack.disposeAsync();
  if (group.footprint && plan.footprints) {
    const ready = await measureAllReady(group, plan.rounds, [directory, images]);
    for (const [name, readyMs] of ready) {
      footprints[name] = { readyMs, residentMib: resident[name] ?? 0 };
    }
  }
  return { id, title, contestants: servers.map(contestantOf), cells: results };
}

async function measureCell(
  { address, pid }: RunningServer,
  cell: Cell,
  plan: Plan,
  round: number,
): Promise<Sample | undefined> {
  const seconds = round === 0 ? plan.seconds * WARM_ROUND_PART : plan.seconds;
  const effort = { seconds, warmSeconds: plan.seconds * WARM_PART, seed: plan.seed + round };
  const before = cpuMicroseconds(pid);
  let after = before;
  const result = await runLoad(address, cell, effort, () => (after = cpuMicroseconds(pid)));
  if (result === undefined) return undefined;
  const { rate, total, p50, p99 } = result;
  return { rate, cpu: (after - before) / total, p50, p99 };
}

/** Whether it is a real server of blocks. */
function hasFootprint({ kind }: Server): boolean {
  return kind !== "ceiling";
}

/** Memory beyond the stored data, in MiB, after the largest load that the kernel's driver makes. */
async function measureResident({ address, pid, server }: RunningServer, plan: Plan): Promise<number> {
  await runLoad(address, FILL, FILL_EFFORT);
  let peak = 0;
  const effort = { seconds: plan.seconds, warmSeconds: 0, seed: plan.seed };
  await runLoad(address, LARGEST, effort, () => (peak = peakResidentBytes(pid)));
  return Number(((peak - server.stores) / MIB).toFixed(1));
}

/** Milliseconds from exec to the first handshake, in turn. Real servers only; the first round is not counted. */
async function measureAllReady(
  { servers }: NativeGroup,
  rounds: number,
  [directory, images]: readonly [string, string],
): Promise<Map<string, number[]>> {
  const real = servers.filter(hasFootprint);
  const times = new Map<string, number[]>(real.map(({ id }) => [id, []]));
  for (let round = 0; round <= rounds; round += 1) {
    for (const server of rotate(real, round)) {
      const place = placeOf(server, directory, images);
      const ms = await measureReady(addressOf(server, place), readyCommand(server, place));
      await endDetached(server, place);
      if (round > 0) times.get(server.id)?.push(Number(ms.toFixed(1)));
    }
  }
  return times;
}
