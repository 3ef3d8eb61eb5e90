/** Goal: what is written through the real driver is what is read, whatever the size, the path and the load. */
import { afterEach, expect, test } from "bun:test";
import { errno } from "tsbuse";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { endServers, Server, untilFree } from "../support/server.ts";
import { sh } from "../support/shell.ts";

afterEach(async () => {
  await endServers();
  await untilFree("nbd0");
  await untilFree("nbd1");
});

const MIB = 2 ** 20;

test("direct I/O of every size up to the longest request, at both ends and across the middle", async () => {
  await Server.start("ramdisk", "128M", "/dev/nbd0");
  await sh("echo 32768 > /sys/block/nbd0/queue/max_sectors_kb");
  for (const length of [512, 4096, 65_536, MIB, 8 * MIB, 32 * MIB]) {
    for (const offset of [0, 64 * MIB - 512, 128 * MIB - length]) {
      const written = pattern(length, length + offset);
      expect(writeDirect("/dev/nbd0", offset, written)).toBe(length);
      expect(readDirect("/dev/nbd0", offset, length)).toEqual(written);
    }
  }
});

test("buffered writes, dropped caches, direct reads: the same bytes", async () => {
  await Server.start("ramdisk", "64M", "/dev/nbd0");
  await sh(`
    dd if=/dev/urandom of=/mnt/random bs=1M count=48 status=none
    dd if=/mnt/random of=/dev/nbd0 bs=64k conv=fsync status=none
    echo 3 > /proc/sys/vm/drop_caches
    cmp -n ${48 * MIB} /mnt/random /dev/nbd0
    dd if=/dev/nbd0 bs=1M count=48 iflag=direct status=none | cmp - /mnt/random
    rm /mnt/random`);
});

test("reading or writing beyond the end is an error of the caller's, and the device lives on", async () => {
  await Server.start("ramdisk", "1M", "/dev/nbd0");
  expect(writeDirect("/dev/nbd0", MIB, pattern(4096, 1))).toBe(-errno.ENOSPC);
  expect(readDirect("/dev/nbd0", MIB, 4096)).toBe(0);
  expect(writeDirect("/dev/nbd0", MIB - 4096, pattern(4096, 1))).toBe(4096);
});

test("fio verifies random writes at depth 32", async () => {
  await Server.start("ramdisk", "64M", "/dev/nbd0");
  await sh(
    `fio --name=verify --filename=/dev/nbd0 --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --direct=1 \
    --ioengine=libaio --iodepth=32 --size=64M --verify=crc32c --verify_fatal=1 --randseed=7 --verify_state_save=0 --output=/dev/null`,
    240_000,
  );
});

test("fio verifies on a loop over a file, with a flush after every eighth write", async () => {
  await Server.start("loop", "/mnt/verify.img", "/dev/nbd0", "--create", "32M");
  await sh(
    `fio --name=verify --filename=/dev/nbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32 \
    --fsync=8 --size=16M --verify=crc32c --verify_fatal=1 --randseed=8 --verify_state_save=0 --output=/dev/null; rm /mnt/verify.img`,
    240_000,
  );
});

test("trim and zeroed ranges give memory back", async () => {
  const server = await Server.start("ramdisk", "256M", "/dev/nbd0");
  const before = await server.residentBytes();
  for (const give of [
    "blkdiscard /dev/nbd0",
    "blkdiscard -z /dev/nbd0",
    "fallocate -p -o 0 -l 256M /dev/nbd0",
  ]) {
    await sh("dd if=/dev/urandom of=/dev/nbd0 bs=1M count=128 oflag=direct status=none");
    expect(await server.residentBytes()).toBeGreaterThan(before + 120 * MIB);
    await sh(give);
    expect(await server.residentBytes(), give).toBeLessThan(before + 8 * MIB);
    expect(await sh("cmp -n 268435456 /dev/nbd0 /dev/zero && echo zero")).toBe("zero");
  }
});

test("a populated disk has its memory at once and keeps it when it is zeroed in place", async () => {
  const server = await Server.start("ramdisk", "64M", "/dev/nbd0", "--populate");
  expect(await server.residentBytes()).toBeGreaterThan(64 * MIB);
  await sh("fallocate -z -o 0 -l 64M /dev/nbd0");
  expect(await server.residentBytes()).toBeGreaterThan(64 * MIB);
});

test("--huge-pages: the same bytes, in pages of 2 MiB", async () => {
  const server = await Server.start("ramdisk", "64M", "/dev/nbd0", "--huge-pages");
  const written = pattern(8 * MIB, 3);
  expect(writeDirect("/dev/nbd0", MIB, written)).toBe(written.length);
  expect(readDirect("/dev/nbd0", MIB, written.length)).toEqual(written);
  const huge = await sh(`awk '/^AnonHugePages/ {sum += $2} END {print sum}' /proc/${server.pid}/smaps`);
  expect(Number(huge)).toBeGreaterThan(0);
});

test("trim and write zeroes of a terabyte take no memory and little time", async () => {
  const server = await Server.start("ramdisk", "1T", "/dev/nbd0");
  const before = await server.residentBytes();
  const written = pattern(4096, 5);
  expect(writeDirect("/dev/nbd0", 2 ** 40 - 4096, written)).toBe(4096);
  await sh("blkdiscard -l 512G /dev/nbd0; blkdiscard -z -l 64G /dev/nbd0");
  expect(readDirect("/dev/nbd0", 2 ** 40 - 4096, 4096)).toEqual(written);
  expect(await server.residentBytes()).toBeLessThan(before + 8 * MIB);
});

test("1 GiB through the device leaves resident memory as it was", async () => {
  const server = await Server.start("ramdisk", "64M", "/dev/nbd0");
  const pass =
    "dd if=/dev/zero of=/dev/nbd0 bs=1M count=64 oflag=direct status=none; dd if=/dev/nbd0 of=/dev/null bs=1M iflag=direct status=none";
  await sh(pass);
  const before = await server.residentBytes();
  for (let i = 0; i < 8; i += 1) await sh(pass);
  expect(await server.residentBytes()).toBeLessThan(before + 16 * MIB);
});

/** fio writes and verifies on one of two nodes. */
function verifyOn(node: number): Promise<string> {
  return sh(
    `fio --name=both${node} --filename=/dev/nbd${node} --rw=randrw --bs=4k --direct=1 --ioengine=libaio \
      --iodepth=16 --size=8M --verify=crc32c --verify_fatal=1 --randseed=${node + 1} --verify_state_save=0 --output=/dev/null`,
    240_000,
  );
}

test("two devices at once, each with its own bytes", async () => {
  await Server.start("ramdisk", "32M", "/dev/nbd0");
  await Server.start("ramdisk", "32M", "/dev/nbd1");
  await Promise.all([verifyOn(0), verifyOn(1)]);
});
