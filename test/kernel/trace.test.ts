/** Goal: a trace shows the kernel's requests, on any driver with any number of queues, and a replay repeats them. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, Server } from "../support/server.ts";
import { fio } from "../support/fio.ts";
import { run, sh, until } from "../support/shell.ts";
import { Tracer } from "../support/tracer.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
const BLOCK = 4096;
const LIMIT_MS = 60_000;
const QUEUES = String(Math.min(2, navigator.hardwareConcurrency));

/** The numbers of the blocks in a range of bytes. */
function blocksOf(offset: number, length: number): number[] {
  return Array.from({ length: length / BLOCK }, (_, index) => offset / BLOCK + index);
}

describeTransports((_, disk) => {
  const { path: node } = disk;

  test("what dd and fio ask for is what two traces tell, and one that is killed does no harm", async () => {
    const server = await Server.start("ramdisk", "64M", node, "--queues", QUEUES);
    const [killed, first, second] = [
      await Tracer.start(node),
      await Tracer.start(node),
      await Tracer.start(node, "--command", "write"),
    ];
    expect(await killed.stop("SIGKILL")).toBe(137);
    await sh(`dd if=/dev/zero of=${node} bs=64k seek=16 count=4 oflag=direct status=none`);
    readDirect(node, 8 * MIB, BLOCK);
    const job = ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=2M", "--offset=32M", "--numjobs=1"];
    const report = await fio(node, ...job);
    expect([await first.stop("SIGINT"), await second.stop("SIGINT")]).toEqual([0, 0]);
    // The kernel may merge neighbours.
    const expected = [...blocksOf(MIB, 256 * 1024), ...blocksOf(32 * MIB, 2 * MIB)];
    expect(report.errors).toBe(0);
    for (const tracer of [first, second]) expect(tracer.blocks("write")).toEqual(expected);
    expect(first.blocks("read")).toContain((8 * MIB) / BLOCK);
    expect(second.told("read")).toEqual([]);
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toBe("");
  }, 300_000);

  test("times are those of the device, errors have names; what was traced is repeated, and not on a disk in use", async () => {
    const layers = ["--layer", "delay:read=100", "--layer", "error:command=trim"];
    const server = await Server.start("ramdisk", "64M", node, ...layers);
    const file = `/mnt/${disk.name}-${randomUUID()}.trace`;
    const recorder = Bun.spawn([BINARY, "trace", node, "--data", "--write", file], { stdout: "ignore" });
    const tracer = await Tracer.start(node);
    await until(
      "the record has begun",
      () => statSync(file, { throwIfNoEntry: false })?.size === 64,
      LIMIT_MS,
    );
    writeDirect(node, MIB, pattern(4096, 5));
    readDirect(node, MIB, 4096);
    await run(["blkdiscard", "-o", "2M", "-l", "1M", node]);
    expect(await tracer.stop("SIGINT")).toBe(0);
    const read = tracer.lines.find((line) => line.includes(` read ${MIB / 512} + 8 `));
    const trim = tracer.lines.find((line) => line.includes(" trim 4096 + 2048 "));
    expect(Number(read?.split(" ")[7])).toBeWithin(100_000, 100_000_000);
    expect(trim).toEndWith(" EIO");
    recorder.kill("SIGINT");
    expect(await recorder.exited).toBe(0);
    // A server does not claim its own node; the file system does.
    await sh(`mkfs.ext4 -qF ${node} && mkdir -p /mnt/traced && mount ${node} /mnt/traced`);
    const refused = await run([BINARY, "replay", file, node, "--destroy"]);
    await sh("umount /mnt/traced");
    expect(refused.stderr).toContain(`${node} is mounted at /mnt/traced: unmount it first`);
    const table = await sh(`${BINARY} replay ${file} ${node} --destroy --fast 2>&1 || true`);
    expect(table).toMatch(/^write +1 +0 /m);
    expect(readDirect(node, MIB, 4096)).toEqual(pattern(4096, 5));
    expect(await server.stop()).toBe(0);
  }, 300_000);
});

describe("what is not traced", () => {
  test("a device of another driver", async () => {
    const refused = await run([BINARY, "trace", "/dev/loop0"]);
    expect(refused.stderr).toContain("no process of tsbuse serves /dev/loop0");
  });
});
