/**
 * Goal: devices that come and go leave nothing behind, neither in a program that continues nor when servers end or are
 * killed. TSBUSE_CYCLES sets the number of servers, see scripts/cycles.
 */
import { expect, test } from "bun:test";
import { attach } from "tsbuse";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { memoryUse } from "../support/memory-use.ts";
import { type OwnUse, ownUse } from "../support/own-use.ts";
import { chooseSeed, Random } from "../support/random.ts";
import { BINARY } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { type SystemUse, systemUse } from "../support/system-use.ts";
import { ALL_TRANSPORTS, describeTransports, TestNode } from "../support/transports.ts";

const MIB = 2 ** 20;
/** A leak shows after ten attachments as well as after fifty, and each takes some seconds on a busy machine. */
const HALF = 10;
/** Less than the memory of an attachment's two threads with their engines. */
const LEAK_BYTES = 2 * MIB;

describeTransports((_, disk) => {
  /** The process's resources after that many more attachments. */
  async function attachMany(count: number): Promise<OwnUse & { readonly resident: number }> {
    for (let done = 0; done < count; done += 1) {
      await using attachment = await attach(new Ramdisk(4 * MIB), disk.path);
      await sh(`dd if=${attachment.path} of=/dev/null bs=1M count=1 iflag=direct status=none`);
    }
    await disk.untilFree();
    Bun.gc(true);
    return { ...ownUse(), resident: memoryUse().resident };
  }

  test("attachments, one after the other, leave no threads, no file descriptors and no memory", async () => {
    const before = await attachMany(HALF);
    const after = await attachMany(HALF);
    expect(after.descriptors).toBe(before.descriptors);
    // Helpers of the runtime and the kernel come and go.
    expect(after.threads).toBeLessThan(before.threads + HALF);
    expect(after.resident).toBeLessThan(before.resident + HALF * LEAK_BYTES);
  }, 600_000);
});

/** The total for all transports. */
const CYCLES = Number(process.env["TSBUSE_CYCLES"] ?? 12);
const CYCLE_LIMIT_MS = 60_000;
const SETTLED_MS = 2000;

/** Runs a server from start to end, and reads and writes its device meanwhile. @param killMs when to kill it. */
async function cycle(
  { path, transport }: TestNode,
  killMs?: number,
): Promise<{ ms: number; killed: boolean }> {
  const began = performance.now();
  const server = Bun.spawn([BINARY, "ramdisk", "4M", path, ...transport.words], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let isCopied = false;
  const limit = setTimeout(() => server.kill("SIGKILL"), CYCLE_LIMIT_MS);
  const timer = killMs === undefined ? undefined : setTimeout(() => server.kill("SIGKILL"), killMs);
  const { value } = await server.stdout.getReader().read();
  if (value !== undefined) {
    const copy = ["dd", `if=${path}`, `of=${path}`, "bs=64k", "count=16", "iflag=direct", "oflag=direct"];
    isCopied = (await run(copy, CYCLE_LIMIT_MS)).status === 0;
    server.kill("SIGTERM");
  }
  const status = await server.exited;
  clearTimeout(limit);
  clearTimeout(timer);
  const killed = killMs !== undefined && server.signalCode === "SIGKILL";
  // What a killed server left behind does not hinder the next one.
  if (!killed) expect([status, isCopied, await server.stderr.text()]).toEqual([0, true, ""]);
  return { ms: performance.now() - began, killed };
}

/**
 * Runs `count` servers on one node: about half are killed at a random moment, and the last one ends in order.
 * @returns how many were killed.
 */
async function cycles(node: TestNode, count: number, lifeMs: number, random: Random): Promise<number> {
  let usualMs = lifeMs;
  let kills = 0;
  for (let done = 1; done < count; done += 1) {
    const { ms, killed } = await cycle(node, random.oneIn(2) ? random.below(usualMs) : undefined);
    if (killed) kills += 1;
    else usualMs = ms;
  }
  await cycle(node);
  return kills;
}

/** Waits, because the kernel closes and frees some of a process's resources a moment after its end. */
async function settledUse(): Promise<SystemUse> {
  Bun.gc(true);
  let use = systemUse();
  let since = performance.now();
  await until("nothing changes", () => {
    const now = systemUse();
    if (!Bun.deepEquals(now, use)) [use, since] = [now, performance.now()];
    return performance.now() - since > SETTLED_MS;
  });
  return use;
}

test(
  `${CYCLES} servers, half of them killed, leave the system as it was`,
  async () => {
    const seed = chooseSeed("moments of death");
    const nodes = ALL_TRANSPORTS.map((transport, index) => new TestNode(transport, index));
    // First load the drivers and make their nodes.
    const lives: number[] = [];
    for (const each of nodes) lives.push((await cycle(each)).ms);
    const before = await settledUse();
    const count = Math.ceil(CYCLES / nodes.length);
    const lanes = nodes.map((each, index) =>
      cycles(each, count - 1, lives[index] ?? 0, new Random(seed + index)),
    );
    const kills = await Promise.all(lanes);
    expect(await settledUse()).toEqual(before);
    expect(JSON.parse((await run([BINARY, "list", "--json"])).stdout)).toEqual([]);
    for (const [index, { path, transport }] of nodes.entries())
      console.log(`${transport.name} on ${path}: ${count} servers, ${kills[index]} of them killed`);
    console.log(JSON.stringify(before));
  },
  120_000 + CYCLES * CYCLE_LIMIT_MS,
);
