#!/usr/bin/env bun
/**
 * What a trace costs the traced process: `bun scripts/trace-cost.ts [BINARY]...`, random reads of 4 KiB from a RAM
 * disk, 32 at once, on a Unix socket. Measures processor time per request, which other programs hardly affect, in
 * rounds that take turns. `written`: the tracer is stopped, so nobody reads the trace. `read`: the tracer writes it to
 * a file.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLoad, firstLine, runLoad } from "./bench/load.ts";

const ROUNDS = 7;
const SECONDS = 2;
const WAYS = ["untraced", "written", "read"] as const;
type Way = (typeof WAYS)[number];

const binaries = process.argv.length > 2 ? process.argv.slice(2) : [join(import.meta.dir, "../dist/tsbuse")];

await buildLoad();
const directory = mkdtempSync(join(tmpdir(), "tsbuse-trace-"));
try {
  const figures = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round += 1)
    for (const binary of binaries)
      for (const way of WAYS) {
        const nanoseconds = await measure(binary, way);
        if (nanoseconds === undefined) continue;
        const name = binaries.length > 1 ? `${binary}, ${way}` : way;
        figures.set(name, [...(figures.get(name) ?? []), nanoseconds]);
      }
  for (const [name, each] of figures) {
    const sorted = each.toSorted((a, b) => a - b);
    const [least = 0, median = 0] = [sorted[0], sorted[Math.floor(sorted.length / 2)]];
    console.log(`${name}: ${median.toFixed(0)} ns for each request, ${least.toFixed(0)} at least`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}

/** Nanoseconds of processor time for each request; undefined for a binary that cannot trace. */
async function measure(binary: string, way: Way): Promise<number | undefined> {
  const socket = join(directory, "disk.sock");
  const server = Bun.spawn([binary, "ramdisk", "64M", `unix:${socket}`], {
    stdout: "pipe",
    stderr: "inherit",
  });
  await firstLine(server.stdout);
  const tracer = way === "untraced" ? undefined : await startTracer(binary, socket, way);
  try {
    if (way !== "untraced" && tracer === undefined) return undefined;
    const effort = { seconds: SECONDS, warmSeconds: 1, seed: 1 };
    let before = 0;
    let after = 0;
    const shape = { mode: "fill", block: 65_536, depth: 8 } as const;
    await runLoad({ socket, exportName: "" }, shape, effort, () => (before = processorTime(server.pid)));
    const load = await runLoad(
      { socket, exportName: "" },
      { mode: "randread", block: 4096, depth: 32 },
      effort,
      () => (after = processorTime(server.pid)),
    );
    return load === undefined ? undefined : (after - before) / load.total;
  } finally {
    tracer?.kill("SIGKILL");
    await tracer?.exited;
    server.kill("SIGTERM");
    await server.exited;
  }
}

/** Returns when it traces; undefined if it cannot. */
async function startTracer(binary: string, socket: string, way: Way): Promise<Bun.Subprocess | undefined> {
  const file = join(directory, `trace-${crypto.randomUUID()}`);
  const words = ["trace", `unix:${socket}`, "--command", way === "read" ? "read" : "flush", "--write", file];
  const tracer = Bun.spawn([binary, ...words], { stdout: "ignore", stderr: "ignore" });
  while (tracer.exitCode === null && (statSync(file, { throwIfNoEntry: false })?.size ?? 0) === 0)
    await Bun.sleep(5);
  if (tracer.exitCode !== null) return undefined;
  if (way === "written") tracer.kill("SIGSTOP");
  return tracer;
}

/** User and system time of all threads, in nanoseconds: /proc/PID/task/TID/schedstat. */
function processorTime(pid: number): number {
  const tasks = [...new Bun.Glob("*/schedstat").scanSync({ cwd: `/proc/${pid}/task`, onlyFiles: true })];
  return tasks.reduce(
    (sum, task) => sum + Number(readFileSync(`/proc/${pid}/task/${task}`, "utf8").split(" ")[0]),
    0,
  );
}
