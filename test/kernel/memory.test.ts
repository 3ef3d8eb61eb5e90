/** Goal: a RAM disk larger than memory fills it; beyond that, writes fail and no process is killed. */
import { afterEach, expect, test } from "bun:test";
import { errno, libc } from "tsbuse";
import { memoryInfo } from "../../src/libc/meminfo.ts";
import { refusal, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { describeTransports, errorSeen } from "../support/transports.ts";

const MIB = 2 ** 20;
const HUGE_PAGE_BYTES = 2 * MIB;
/** Memory that the test leaves to the guest. */
const LEFT_BYTES = 600 * MIB;

/** With less than this left, none of these tests could succeed. */
const ENOUGH_BYTES = 1024 * MIB;

/** Takes memory until little is left, as unused huge pages, which takes no time. */
async function useUpMemory(): Promise<void> {
  const bytes = (memoryInfo()?.available ?? 0) - LEFT_BYTES;
  const pages = Math.floor(bytes / HUGE_PAGE_BYTES);
  await sh(`echo ${pages} >/proc/sys/vm/nr_hugepages`);
  expect(memoryInfo()?.available).toBeLessThan(ENOUGH_BYTES);
}

describeTransports((transport, disk) => {
  const { path: node } = disk;

  afterEach(() => sh("echo 0 >/proc/sys/vm/nr_hugepages"));

  test("a disk larger than memory is filled until writes fail, and goes on", async () => {
    await useUpMemory();
    const server = await Server.start("ramdisk", "4G", node);
    const before = Number(await sh("dmesg | grep -ci 'out of memory' || true"));
    await sh(`yes tsbuse | dd of=${node} bs=1M count=64 iflag=fullblock oflag=direct status=none`);
    const dd = await run(["dd", "if=/dev/zero", `of=${node}`, "bs=1M", "seek=64", "oflag=direct"]);
    expect(dd.status).toBe(1);
    expect(dd.stderr).toContain(libc.errorText(errorSeen(transport, errno.ENOSPC)));
    const written = Number(/^(\d+)\+0 records out$/m.exec(dd.stderr)?.[1]);
    expect(written).toBeWithin(1, 4096 - 64);
    // Other programs still get memory.
    expect(await sh("head -c 64M /dev/zero | tail -c 64M | wc -c")).toBe(String(64 * MIB));
    expect(await sh("dmesg | grep -ci 'out of memory' || true")).toBe(String(before));

    // Existing data can be read and overwritten, and freed space can be used.
    expect(await sh(`dd if=${node} bs=1M count=64 iflag=direct status=none | uniq | head -c 7`)).toBe(
      "tsbuse",
    );
    await sh(`yes again | dd of=${node} bs=1M count=64 iflag=fullblock oflag=direct status=none`);
    await sh(`blkdiscard -o 64M -l ${written}M ${node}`);
    await sh(`dd if=/dev/zero of=${node} bs=1M seek=64 count=8 oflag=direct status=none`);
    expect(await server.stop()).toBe(0);
    const lines = (await server.errors).trim().split("\n");
    expect(lines[0]).toMatch(/^tsbuse: warning: 4G is more than the \d+ MiB of memory available: /);
    expect(lines[1]).toBe(
      "tsbuse: warning: the system's memory is used up: writes fail until some is free, or is trimmed",
    );
    expect(lines[2]).toBe("tsbuse: warning: there is memory again: writes succeed");
  });

  test("--populate of more than there is is refused, and the node is left alone", async () => {
    await useUpMemory();
    expect(await refusal("ramdisk", "1G", node, "--populate")).toMatch(
      /^tsbuse: --populate of 1G needs more than the \d+ MiB of memory available: give a smaller size, or leave it out\n$/,
    );
    await Server.start("ramdisk", "64M", node, "--populate");
  });
});
