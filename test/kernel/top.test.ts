/** Goal: the figures of a device in use agree with those of the kernel and fio, on each driver, also with threads. */
import { expect, test } from "bun:test";
import { askServer } from "../../src/control/client.ts";
import { parseStatistics, type Statistics } from "../../src/control/statistics.ts";
import {
  BYTES,
  COUNT,
  difference,
  FUA_WRITE,
  kindCells,
  READ,
  TRIM,
  WRITE,
} from "../../src/queues/ledger.ts";
import { ratesOf } from "../../src/cli/top/rates.ts";
import { BINARY, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const SECTOR = 512;
const DELAY_MS = 30;
/** Reported times are at most an eighth too long, and fio's own figures are accurate to a sixty-fourth. */
const ROUNDED = (1 + 1 / 8) * (1 + 1 / 64);

async function look(node: string): Promise<Statistics> {
  const statistics = parseStatistics(await askServer(node, "statistics", { watchMs: 60_000 }));
  if (statistics === undefined) throw new Error(`${node} does not say what it has counted`);
  return statistics;
}

async function fio(node: string, ...words: string[]): Promise<{ clat: Record<string, number> }> {
  const common = ["--name=job", `--filename=${node}`, "--direct=1", "--ioengine=libaio", "--iodepth=16"];
  const { status, stdout } = await run(["fio", ...common, ...words, "--output-format=json"], 60_000);
  expect(status).toBe(0);
  const [job] = JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs;
  return { clat: job.read.clat_ns.percentile };
}

describeTransports((_, disk) => {
  const { path: node } = disk;

  test.each([1, 2])("requests and bytes of %d queues are those of /sys/block/*/stat", async (queues) => {
    const server = await Server.start("ramdisk", "64M", node, "--queues", String(queues));
    const [before, kernelBefore] = [await look(node), disk.attribute("stat")];
    await fio(
      node,
      "--rw=randrw",
      "--bsrange=4k-64k",
      "--size=64M",
      "--io_size=16M",
      "--randseed=7",
      "--numjobs=2",
    );
    await sh(`blkdiscard -o 1M -l 1M ${node}`);
    const [after, kernelAfter] = [await look(node), disk.attribute("stat")];
    const [first = [], last = []] = [kernelBefore, kernelAfter].map((text) => text.split(/\s+/).map(Number));
    const counted = (field: number): number => (last[field] ?? 0) - (first[field] ?? 0);
    const cells = difference(after.cells, before.cells);
    const own = (place: number, ...kinds: number[]): number =>
      kinds.reduce((sum, kind) => sum + (kindCells(cells, kind)[place] ?? 0), 0);
    // Fields of Documentation/block/stat.rst.
    expect([own(COUNT, READ), own(BYTES, READ)]).toEqual([counted(0), counted(2) * SECTOR]);
    expect([own(COUNT, WRITE, FUA_WRITE), own(BYTES, WRITE, FUA_WRITE)]).toEqual([
      counted(4),
      counted(6) * SECTOR,
    ]);
    expect([own(COUNT, TRIM), own(BYTES, TRIM)]).toEqual([counted(11), counted(13) * SECTOR]);
    expect(counted(0)).toBeGreaterThan(100);
    expect(after.queues).toBe(queues);
    expect(await server.stop()).toBe(0);
  });

  test("time in the device is what a layer delays by, and no more than fio waits", async () => {
    const server = await Server.start("ramdisk", "64M", node, "--layer", `delay:read=${DELAY_MS}`);
    const before = await look(node);
    const { clat } = await fio(node, "--rw=randread", "--bs=4k", "--number_ios=200", "--randseed=7");
    const { kinds, layers } = ratesOf(await look(node), before);
    const { requests = 0, device } = kinds.read ?? {};
    expect(requests).toBe(200);
    for (const [part, own = 0] of [
      ["50.000000", device?.p50],
      ["99.000000", device?.p99],
    ] as const) {
      // A timer may be early by less than a millisecond.
      expect(own).toBeGreaterThanOrEqual((DELAY_MS - 1) * 1000);
      expect(own).toBeLessThanOrEqual(((clat[part] ?? 0) / 1000) * ROUNDED);
    }
    const [delay, ramdisk] = layers;
    expect([delay?.name, delay?.requests, ramdisk?.requests]).toEqual(["delay", 200, 200]);
    expect(delay?.microseconds).toBeGreaterThanOrEqual((DELAY_MS - 1) * 1000);
    const { status, stdout } = await run([BINARY, "top", node, "--count", "1", "--interval", "0.1"]);
    expect([status, stdout.split("\n")[2]]).toEqual([0, expect.stringContaining(node)]);
    expect(await server.stop()).toBe(0);
  });
});
