/** Goal: a loop device is as good as what it is on: durable when it says so, chained when asked, honest when it fails. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { errno } from "tsbuse";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, Server, untilFree } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";

afterEach(async () => {
  await endServers();
  await untilFree("nbd0");
  await untilFree("nbd1");
  await sh("umount /mnt/small 2>/dev/null || true; rm -f /mnt/*.img");
});

const MIB = 2 ** 20;

test("loop chained on ramdisk: what is written to one is read from the other", async () => {
  const below = await Server.start("ramdisk", "64M", "/dev/nbd0");
  const above = await Server.start("loop", "/dev/nbd0", "/dev/nbd1", "--offset", "1M", "--size", "32M");
  expect(await sh("blockdev --getsize64 /dev/nbd1")).toBe(String(32 * MIB));
  await sh(
    "mkfs.ext4 -q /dev/nbd1; mkdir -p /mnt/small; mount /dev/nbd1 /mnt/small; echo deep > /mnt/small/f; umount /mnt/small",
  );
  const written = pattern(MIB, 9);
  expect(writeDirect("/dev/nbd1", 16 * MIB, written)).toBe(MIB);
  await sh("blkdiscard -z -o 8M -l 4M /dev/nbd1; blkdiscard -o 12M -l 4M /dev/nbd1");
  expect(await above.stop()).toBe(0);
  expect(readDirect("/dev/nbd0", 17 * MIB, MIB)).toEqual(written);
  expect(await below.stop()).toBe(0);
}, 60_000);

test("a chained device is held exclusively, and a mounted one is refused", async () => {
  await Server.start("ramdisk", "64M", "/dev/nbd0");
  const above = await Server.start("loop", "/dev/nbd0", "/dev/nbd1");
  const second = await run([BINARY, "loop", "/dev/nbd0", "auto"]);
  expect(second.stderr).toBe(
    "tsbuse: /dev/nbd0 is in use by a mount or another device: unmount or detach it first\n",
  );
  await above.stop();
  await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/small; mount /dev/nbd0 /mnt/small");
  const third = await run([BINARY, "loop", "/dev/nbd0", "/dev/nbd1"]);
  await sh("umount /mnt/small");
  expect(third.stderr).toBe(
    "tsbuse: /dev/nbd0 is in use by a mount or another device: unmount or detach it first\n",
  );
});

test("a device is not served on itself", async () => {
  const end = await run([BINARY, "loop", "/dev/nbd0", "/dev/nbd0"]);
  expect(end.status).toBe(1);
  expect(end.stderr).toBe("tsbuse: /dev/nbd0 cannot be served on itself: choose another target\n");
});

test("an error of the device reaches pread and pwrite, and the device lives on", async () => {
  await Server.start("loop", "/mnt/shrinks.img", "/dev/nbd0", "--create", "1M");
  const written = pattern(4096, 11);
  expect(writeDirect("/dev/nbd0", 0, written)).toBe(4096);
  truncateSync("/mnt/shrinks.img", 512 * 1024);
  expect(readDirect("/dev/nbd0", 768 * 1024, 4096)).toBe(-errno.EIO);
  expect(readDirect("/dev/nbd0", 0, 4096)).toEqual(written);
  truncateSync("/mnt/shrinks.img", MIB);
  expect(readDirect("/dev/nbd0", 768 * 1024, 4096)).toEqual(new Uint8Array(4096));
});

test("a full file system below is an error above, not a lost write", async () => {
  await sh("mkdir -p /mnt/small; mount -t tmpfs -o size=1M none /mnt/small");
  const server = await Server.start("loop", "/mnt/small/sparse.img", "/dev/nbd0", "--create", "4M");
  expect(writeDirect("/dev/nbd0", 0, pattern(4096, 12))).toBe(4096);
  const end = await run(["dd", "if=/dev/urandom", "of=/dev/nbd0", "bs=64k", "count=64", "oflag=direct"]);
  expect(end.status).not.toBe(0);
  expect(end.stderr).toContain("error writing '/dev/nbd0'");
  expect(readDirect("/dev/nbd0", 0, 4096)).toBeInstanceOf(Uint8Array);
  expect(await server.stop()).toBe(0);
  expect(await server.errors).toMatch(/^tsbuse: warning: write failed: .*No space left on device/);
  await sh("umount /mnt/small");
});

test("trimmed ranges are holes in the file", async () => {
  await Server.start("loop", "/mnt/holes.img", "/dev/nbd0", "--create", "16M");
  await sh("dd if=/dev/urandom of=/dev/nbd0 bs=1M count=16 oflag=direct status=none");
  expect(Number(await sh("stat -c %b /mnt/holes.img"))).toBe((16 * MIB) / 512);
  await sh("blkdiscard -o 4M -l 8M /dev/nbd0");
  expect(Number(await sh("stat -c %b /mnt/holes.img"))).toBe((8 * MIB) / 512);
});

test("a flush and a FUA write are asked of the device when the caller asks for them", async () => {
  const server = await Server.start("loop", "/mnt/flush.img", "/dev/nbd0", "--create", "16M", "--verbose");
  expect(await sh("cat /sys/block/nbd0/queue/write_cache; cat /sys/block/nbd0/queue/fua")).toBe(
    "write back\n1",
  );
  await sh("dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct,dsync status=none");
  await sh("dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 seek=5 conv=fsync status=none");
  await server.stop();
  const lines = (await server.errors).split("\n");
  expect(lines).toContain("tsbuse: write offset 0 length 4096 fua");
  const write = lines.indexOf("tsbuse: write offset 20480 length 4096");
  expect(write).toBeGreaterThan(0);
  expect(lines.indexOf("tsbuse: flush", write)).toBeGreaterThan(write);
});

test("a file that another tsbuse serves is refused", async () => {
  await Server.start("loop", "/mnt/taken.img", "/dev/nbd0", "--create", "1M");
  const end = await run([BINARY, "loop", "/mnt/taken.img", "/dev/nbd1"]);
  expect(end.status).toBe(1);
  expect(end.stderr).toBe(
    "tsbuse: /mnt/taken.img is locked by another process that serves it: detach it there first\n",
  );
});

test("a file that a kernel loop device has is refused", async () => {
  await sh("modprobe loop; truncate -s 1M /mnt/taken.img; losetup /dev/loop0 /mnt/taken.img");
  const end = await run([BINARY, "loop", "/mnt/taken.img", "/dev/nbd1"]);
  await sh("losetup -d /dev/loop0");
  expect(end.status).toBe(1);
  expect(end.stderr).toMatch(/^tsbuse: \/mnt\/taken.img is in use by \/dev\/loop0: .*\n$/);
});

test("a device on top of one that turns says that it turns", async () => {
  await Server.start("ramdisk", "16M", "/dev/nbd0");
  await sh("echo 1 > /sys/block/nbd0/queue/rotational");
  await Server.start("loop", "/dev/nbd0", "/dev/nbd1");
  expect(await sh("cat /sys/block/nbd1/queue/rotational")).toBe("1");
});

test("--direct serves from an ext4 file around the page cache", async () => {
  await Server.start("ramdisk", "64M", "/dev/nbd0");
  await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/small; mount /dev/nbd0 /mnt/small");
  const server = await Server.start(
    "loop",
    "/mnt/small/direct.img",
    "/dev/nbd1",
    "--create",
    "16M",
    "--direct",
  );
  const written = pattern(MIB, 13);
  expect(writeDirect("/dev/nbd1", 512, written.subarray(0, 512))).toBe(512);
  expect(writeDirect("/dev/nbd1", MIB, written)).toBe(MIB);
  expect(readDirect("/dev/nbd1", MIB, MIB)).toEqual(written);
  expect(await server.stop()).toBe(0);
  await sh("umount /mnt/small");
});

describe("a file on ext4", () => {
  beforeEach(async () => {
    await Server.start("ramdisk", "160M", "/dev/nbd0");
    await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/small; mount /dev/nbd0 /mnt/small");
  });

  /** Writes and reads 24 MiB at random, 32 requests at a time, and looks whether each brings what was written. */
  const VERIFY =
    "fio --name=verify --filename=/dev/nbd1 --direct=1 --ioengine=libaio --iodepth=32 --size=24M --bsrange=4k-64k" +
    " --rw=randwrite --fdatasync=64 --trim_backlog=8 --verify=crc32c --verify_fatal=1 --end_fsync=1";

  test.each<[string, string[]]>([
    ["around the page cache", ["--direct"]],
    ["from an offset", ["--offset", "4096"]],
  ])("has many requests at once, %s", async (_, options) => {
    const server = await Server.start("loop", "/mnt/small/f.img", "/dev/nbd1", "--create", "32M", ...options);
    await sh(VERIFY);
    // Nothing is left in memory: what is read comes from the disk, and is the same.
    const before = await sh("sha256sum < /dev/nbd1");
    await sh("sync; echo 3 > /proc/sys/vm/drop_caches");
    expect(await sh("sha256sum < /dev/nbd1")).toBe(before);
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toBe("");
    await sh("umount /mnt/small");
  });

  test("is served where there is no io_uring, one request after the other", async () => {
    await sh("sysctl -q kernel.io_uring_disabled=2");
    try {
      const server = await Server.start(
        "loop",
        "/mnt/small/f.img",
        "/dev/nbd1",
        "--create",
        "32M",
        "--direct",
        "--verbose",
      );
      await sh(VERIFY);
      expect(await server.stop()).toBe(0);
      expect((await server.errors).split("\n")[0]).toBe(
        "tsbuse: /mnt/small/f.img is served one request at a time: io_uring_setup: Operation not permitted",
      );
    } finally {
      await sh("sysctl -q kernel.io_uring_disabled=0; umount /mnt/small");
    }
  });
});
