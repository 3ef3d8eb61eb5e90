/** Goal: a device served by several threads behaves as one device in its data, its end and its failures. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readlinkSync, writeSync } from "node:fs";
import { libc } from "tsbuse";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { shutdown } from "../../src/libc/socket.ts";
import { requestsInFlight } from "../../src/nodes/node-state.ts";
import { serveDevice } from "../../src/target/serve-device.ts";
import { fio, type FioReport, VERIFY } from "../support/fio.ts";
import { writeFiles } from "../support/files.ts";
import { redirectWorkers } from "../support/redirect-workers.ts";
import { BINARY, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { threadTicks } from "../support/thread-ticks.ts";
import { ALL_TRANSPORTS, describeTransports } from "../support/transports.ts";

const PROCESSORS = navigator.hardwareConcurrency;
const LIMIT_MS = 120_000;
/** One job on each of two distant processors, because neighbours may share a queue. */
const TWO_JOBS = [
  "--numjobs=2",
  `--cpus_allowed=0,${PROCESSORS - 1}`,
  "--cpus_allowed_policy=split",
  "--group_reporting",
];

/** A module whose device answers everything except reads of its second half. */
const SILENT = `export default {
  size: 2 ** 20,
  async read(target, offset) {
    if (offset >= 2 ** 19) await new Promise(() => undefined);
    target.fill(7);
  },
};`;

const RAMDISK = ["ramdisk", "64M"];
const LOOP = ["loop", "/mnt/queues.img", "--create", "64M"];

function isSocket(fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
  } catch {
    // It belonged to reading the directory.
    return false;
  }
}

/** This process's descriptors of sockets. */
function sockets(): number[] {
  return readdirSync("/proc/self/fd").filter(isSocket).map(Number);
}

describeTransports((transport, disk, neighbour) => {
  const { path: node, name } = disk;
  const isNbd = transport.name !== "ublk";
  const way = { attach: transport.words.includes("ioctl") ? ("ioctl" as const) : undefined };

  const queues = (): string[] => readdirSync(`/sys/block/${name}/mq`).toSorted();

  /** Random reads and writes for longer than the test. */
  async function load(): Promise<{ readonly report: Promise<FioReport> }> {
    const job = ["--rw=randrw", "--bs=4k", "--iodepth=32", "--time_based", "--runtime=60", "--size=64M"];
    const report = fio(node, ...job, ...TWO_JOBS);
    await until("fio is at work", () => Number(disk.attribute("stat").split(/\s+/)[0]) > 500, 30_000);
    return { report };
  }

  test("more than there are processors are refused, and nothing is left", async () => {
    const line = await refusal(...RAMDISK, node, "--queues", String(PROCESSORS + 1));
    expect(line).toContain(`this machine has processors for ${PROCESSORS}, give that or less`);
    expect(disk.isAttached).toBe(false);
  });

  test("a device that one thread can reach has one, and a line says so", async () => {
    const server = await Server.start("deadbeef", "16M", node, "--queues", "2");
    expect(queues()).toEqual(["0"]);
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toBe(
      "tsbuse: warning: the device can be reached by one thread only: it is served by one queue\n",
    );
  });

  test.each(
    (transport.words.length === 0 ? [RAMDISK, LOOP] : [RAMDISK]).flatMap((words) =>
      [2, 4].filter((count) => count <= PROCESSORS).map((count) => ({ words, count })),
    ),
  )(
    "$words by $count threads: what fio writes is verified, and each has its part",
    async ({ words, count }) => {
      const server = await Server.start(...words, node, "--queues", `${count}`);
      expect(queues()).toEqual(Array.from({ length: count }, (_, index) => `${index}`));
      // With several connections the NBD driver gives one up when the timer fires, so the timer must not fire.
      if (isNbd) expect(Number(disk.queue("io_timeout"))).toBeGreaterThan(24 * 60 * 60 * 1000);
      const before = threadTicks(server.pid);
      const sizes = ["--size=32M", "--offset_increment=32M", "--bsrange=512-64k", "--bs_unaligned=0"];
      const report = await fio(node, ...TWO_JOBS, ...sizes, "--iodepth=128", "--randseed=17", ...VERIFY);
      expect(report).toMatchObject({ errors: 0, messages: "" });
      const [most = 0, next = 0] = threadTicks(server.pid)
        .map(({ thread, ticks }) => ticks - (before.find((one) => one.thread === thread)?.ticks ?? 0))
        .toSorted((a, b) => b - a);
      expect(next).toBeGreaterThan(most / 4);
      expect(await server.stop()).toBe(0);
      expect(await server.errors).toBe("");
    },
    LIMIT_MS,
  );

  test("they wait for requests without a processor", async () => {
    const server = await Server.start(...RAMDISK, node, "--queues", "2");
    await sh(`dd if=${node} of=/dev/null bs=4k count=500 iflag=direct status=none`);
    const ticks = (): number => threadTicks(server.pid).reduce((sum, each) => sum + each.ticks, 0);
    const before = ticks();
    // Not a wait for an event: the threads must stay idle for this long.
    await Bun.sleep(2000);
    // A second has a hundred ticks.
    expect(ticks() - before).toBeLessThan(60);
  });

  describe("the end", () => {
    test(
      "by SIGTERM under load: exit 0, what was not synced is on the device, and the node is free",
      async () => {
        const server = await Server.start(
          "loop",
          "/mnt/queues.img",
          node,
          "--create",
          "128M",
          "--queues",
          "2",
        );
        const bytes = Buffer.alloc(8 * 2 ** 20, "written, not synced. ");
        const fd = openSync(node, "r+");
        try {
          writeSync(fd, bytes, 0, bytes.length, 64 * 2 ** 20);
          const { report } = await load();
          expect(await server.stop()).toBe(0);
          expect((await report).errors).not.toBe(0);
        } finally {
          closeSync(fd);
        }
        const there = await Bun.file("/mnt/queues.img")
          .slice(64 * 2 ** 20, 72 * 2 ** 20)
          .bytes();
        expect(Buffer.from(there).equals(bytes)).toBe(true);
        const next = await Server.start(...RAMDISK, node);
        expect(await next.stop()).toBe(0);
      },
      LIMIT_MS,
    );

    test(
      "by kill -9 under load: its users get errors, and the node attaches again",
      async () => {
        const server = await Server.start(...RAMDISK, node, "--queues", "2");
        const { report } = await load();
        expect(await server.stop("SIGKILL")).toBe(137);
        expect((await report).errors).not.toBe(0);
        await disk.untilFree();
        const next = await Server.start(...RAMDISK, node, "--queues", "2");
        expect(await next.stop()).toBe(0);
      },
      LIMIT_MS,
    );

    test(
      "by a disconnect of another process under load",
      async () => {
        const server = await Server.start(...RAMDISK, node, "--queues", "2");
        const { report } = await load();
        expect(await run([BINARY, "disconnect", node, "--force"])).toMatchObject({ status: 0, stderr: "" });
        await server.ended();
        expect((await report).errors).not.toBe(0);
      },
      LIMIT_MS,
    );

    test("while the file of the device does not answer: what waits for it is given up", async () => {
      const module = writeFiles("/mnt/silent", { "disk.ts": SILENT });
      const below = await Server.start("run", module, neighbour.path);
      const words = ["loop", below.path, node, "--read-only", "--queues", "2", "--request-timeout", "1"];
      const server = await Server.start(...words);
      const dd = ["dd", `if=${node}`, "of=/dev/null", "bs=4k", "count=1", "skip=128", "iflag=direct"];
      expect((await run(dd)).status).toBe(1);
      expect(requestsInFlight(name)).toBe(0);
      expect(await server.stop()).toBe(0);
      expect(await server.errors).toMatch(/: answered with EIO\n/);
      await below.stop("SIGKILL");
    });

    // With ublk a single queue has its own thread as well.
    test.each(isNbd ? [2] : [1, 2])(
      "by a thread that fails under load, of %d: requests fail, none hangs, and `done` is rejected",
      async (count) => {
        using _ = redirectWorkers("queue", "failing-queue");
        const ready = Promise.withResolvers<void>();
        const options = { ...way, queues: count, onReady: () => ready.resolve() };
        const served = serveDevice(new Ramdisk(64 * 2 ** 20), node, options);
        await Promise.race([ready.promise, served]);
        const writing = fio(node, "--rw=randwrite", "--bs=4k", "--iodepth=64", ...TWO_JOBS);
        await expect(served).rejects.toThrow("a queue's thread failed: the guard has failed");
        expect((await writing).errors).toBeGreaterThan(0);
        await disk.untilFree();
      },
      LIMIT_MS,
    );
  });

  if (isNbd)
    test(
      "a connection that breaks is the end of all of them",
      async () => {
        const before = sockets();
        const ready = Promise.withResolvers<void>();
        const options = { ...way, queues: 2, onReady: () => ready.resolve() };
        const served = serveDevice(new Ramdisk(64 * 2 ** 20), node, options);
        await Promise.race([ready.promise, served]);
        const { report } = await load();
        const [, second = -1] = sockets().filter((fd) => !before.includes(fd));
        libc.unwrap(shutdown(second), "shutdown");
        await expect(served).rejects.toThrow(`${node} was cut off (the kernel closed the connection)`);
        expect((await report).errors).toBeGreaterThan(0);
        await disk.untilFree();
        expect(sockets()).toEqual(before);
      },
      LIMIT_MS,
    );
}, ALL_TRANSPORTS);
