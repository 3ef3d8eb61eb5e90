/** Goal: data written through the real driver is read back, whatever the size, the path and the load. */
import { expect, test } from "bun:test";
import { errno } from "tsbuse";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { Server } from "../support/server.ts";
import { sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;

describeTransports((transport, disk, neighbour) => {
  const { path: node, name } = disk;
  const other = neighbour.path;

  test("direct I/O of every size up to the longest request, at both ends and across the middle", async () => {
    await Server.start("ramdisk", "128M", node);
    await sh(`echo ${transport.requestKib} > /sys/block/${name}/queue/max_sectors_kb`);
    for (const length of [512, 4096, 65_536, MIB, 8 * MIB, 32 * MIB]) {
      for (const offset of [0, 64 * MIB - 512, 128 * MIB - length]) {
        const written = pattern(length, length + offset);
        expect(writeDirect(node, offset, written)).toBe(length);
        expect(readDirect(node, offset, length)).toEqual(written);
      }
    }
  });

  test("buffered writes, dropped caches, direct reads: the same bytes", async () => {
    await Server.start("ramdisk", "64M", node);
    await sh(`
    dd if=/dev/urandom of=/mnt/random bs=1M count=48 status=none
    dd if=/mnt/random of=${node} bs=64k conv=fsync status=none
    echo 3 > /proc/sys/vm/drop_caches
    cmp -n ${48 * MIB} /mnt/random ${node}
    dd if=${node} bs=1M count=48 iflag=direct status=none | cmp - /mnt/random
    rm /mnt/random`);
  });

  test("reading or writing beyond the end is an error of the caller's, and the device lives on", async () => {
    await Server.start("ramdisk", "1M", node);
    expect(writeDirect(node, MIB, pattern(4096, 1))).toBe(-errno.ENOSPC);
    expect(readDirect(node, MIB, 4096)).toBe(0);
    expect(writeDirect(node, MIB - 4096, pattern(4096, 1))).toBe(4096);
  });

  test("fio verifies random writes at depth 32", async () => {
    await Server.start("ramdisk", "64M", node);
    const sizes = ["--bsrange=512-64k", "--bs_unaligned=0", "--size=64M"];
    const report = await fio(node, ...sizes, "--iodepth=32", "--randseed=7", ...VERIFY);
    expect(report).toMatchObject({ errors: 0, messages: "" });
  });

  test("trim and zeroed ranges give memory back", async () => {
    const server = await Server.start("ramdisk", "96M", node);
    await sh("dd if=/dev/urandom of=/mnt/random bs=1M count=64 status=none");
    const before = await server.residentBytes();
    for (const give of [`blkdiscard ${node}`, `blkdiscard -z ${node}`, `fallocate -p -o 0 -l 96M ${node}`]) {
      await sh(`dd if=/mnt/random of=${node} bs=1M oflag=direct status=none`);
      expect(await server.residentBytes()).toBeGreaterThan(before + 60 * MIB);
      await sh(give);
      expect(await server.residentBytes(), give).toBeLessThan(before + 8 * MIB);
      expect(await sh(`cmp -n ${96 * MIB} ${node} /dev/zero && echo zero`)).toBe("zero");
    }
  });

  test("--huge-pages: the same bytes, in pages of 2 MiB", async () => {
    const server = await Server.start("ramdisk", "64M", node, "--huge-pages");
    const written = pattern(8 * MIB, 3);
    expect(writeDirect(node, MIB, written)).toBe(written.length);
    expect(readDirect(node, MIB, written.length)).toEqual(written);
    const huge = await sh(`awk '/^AnonHugePages/ {sum += $2} END {print sum}' /proc/${server.pid}/smaps`);
    expect(Number(huge)).toBeGreaterThan(0);
  });

  test("trim and write zeroes of a terabyte take no memory and little time", async () => {
    const server = await Server.start("ramdisk", "1T", node);
    const before = await server.residentBytes();
    const written = pattern(4096, 5);
    expect(writeDirect(node, 2 ** 40 - 4096, written)).toBe(4096);
    await sh(`blkdiscard -l 512G ${node}; blkdiscard -z -l 64G ${node}`);
    expect(readDirect(node, 2 ** 40 - 4096, 4096)).toEqual(written);
    expect(await server.residentBytes()).toBeLessThan(before + 8 * MIB);
  });

  test("1 GiB through the device leaves resident memory as it was", async () => {
    const server = await Server.start("ramdisk", "64M", node);
    const pass = `dd if=/dev/zero of=${node} bs=1M count=64 oflag=direct status=none; dd if=${node} of=/dev/null bs=1M iflag=direct status=none`;
    await sh(pass);
    const before = await server.residentBytes();
    for (let i = 0; i < 8; i += 1) await sh(pass);
    expect(await server.residentBytes()).toBeLessThan(before + 16 * MIB);
  });

  test("two devices at once, each with its own bytes", async () => {
    await Server.start("ramdisk", "32M", node);
    await Server.start("ramdisk", "32M", other);
    const job = ["--bs=4k", "--iodepth=16", "--size=8M", ...VERIFY, "--rw=randrw"];
    const reports = await Promise.all([
      fio(node, ...job, "--randseed=1"),
      fio(other, ...job, "--randseed=2"),
    ]);
    expect(reports.map(({ errors }) => errors)).toEqual([0, 0]);
  });
});
