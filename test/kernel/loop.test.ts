/** Goal: a loop device is as good as its file: durable when it says so, chained on request, honest about failures. */
import { expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { errno } from "tsbuse";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, refusal, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;

describeTransports((transport, disk, neighbour) => {
  const { path: node } = disk;
  const { path: other } = neighbour;

  test("loop chained on ramdisk: what is written to one is read from the other", async () => {
    const below = await Server.start("ramdisk", "64M", node);
    const above = await Server.start("loop", node, other, "--offset", "1M", "--size", "32M");
    expect(await sh(`blockdev --getsize64 ${other}`)).toBe(String(32 * MIB));
    await sh(
      `mkfs.ext4 -q ${other}; mkdir -p /mnt/small; mount ${other} /mnt/small; echo deep > /mnt/small/f; umount /mnt/small`,
    );
    const written = pattern(MIB, 9);
    expect(writeDirect(other, 16 * MIB, written)).toBe(MIB);
    await sh(`blkdiscard -z -o 8M -l 4M ${other}; blkdiscard -o 12M -l 4M ${other}`);
    expect(await above.stop()).toBe(0);
    expect(readDirect(node, 17 * MIB, MIB)).toEqual(written);
    expect(await below.stop()).toBe(0);
  }, 60_000);

  test("a chained device is held exclusively, and a mounted one is refused", async () => {
    await Server.start("ramdisk", "64M", node);
    const above = await Server.start("loop", node, other);
    const inUse = `tsbuse: ${node} is in use by a mount or another device: unmount or detach it first\n`;
    expect(await refusal("loop", node, transport.any)).toBe(inUse);
    await above.stop();
    await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/small; mount ${node} /mnt/small`);
    expect(await refusal("loop", node, other)).toBe(inUse);
    await sh("umount /mnt/small");
  });

  test("a device is not served on itself", async () => {
    expect(await refusal("loop", node, node)).toBe(
      `tsbuse: ${node} cannot be served on itself: choose another target\n`,
    );
  });

  test("an error of the device reaches pread and pwrite, and the device lives on", async () => {
    await Server.start("loop", "/mnt/shrinks.img", node, "--create", "1M");
    const written = pattern(4096, 11);
    expect(writeDirect(node, 0, written)).toBe(4096);
    truncateSync("/mnt/shrinks.img", 512 * 1024);
    expect(readDirect(node, 768 * 1024, 4096)).toBe(-errno.EIO);
    expect(readDirect(node, 0, 4096)).toEqual(written);
    truncateSync("/mnt/shrinks.img", MIB);
    expect(readDirect(node, 768 * 1024, 4096)).toEqual(new Uint8Array(4096));
  });

  test("a full file system below is an error above, not a lost write", async () => {
    await sh("mkdir -p /mnt/small; mount -t tmpfs -o size=1M none /mnt/small");
    const server = await Server.start("loop", "/mnt/small/sparse.img", node, "--create", "4M");
    expect(writeDirect(node, 0, pattern(4096, 12))).toBe(4096);
    const end = await run(["dd", "if=/dev/urandom", `of=${node}`, "bs=64k", "count=64", "oflag=direct"]);
    expect(end.status).not.toBe(0);
    expect(end.stderr).toContain(`error writing '${node}'`);
    expect(readDirect(node, 0, 4096)).toBeInstanceOf(Uint8Array);
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toMatch(/^tsbuse: warning: write failed: .*No space left on device/);
    await sh("umount /mnt/small");
  });

  test("a flush and a FUA write are asked of the device when the caller asks for them", async () => {
    const server = await Server.start("loop", "/mnt/flush.img", node, "--create", "16M", "--verbose");
    expect(disk.queue("write_cache")).toBe("write back");
    expect(disk.queue("fua")).toBe("1");
    await sh(`dd if=/dev/zero of=${node} bs=4k count=1 oflag=direct,dsync status=none`);
    await sh(`dd if=/dev/zero of=${node} bs=4k count=1 seek=5 conv=fsync status=none`);
    await server.stop();
    const lines = (await server.errors).split("\n");
    expect(lines).toContain("tsbuse: write offset 0 length 4096 fua");
    const write = lines.indexOf("tsbuse: write offset 20480 length 4096");
    expect(write).toBeGreaterThan(0);
    expect(lines.indexOf("tsbuse: flush", write)).toBeGreaterThan(write);
  });

  test("zeroes that are to keep their space keep it, and others need not", async () => {
    const server = await Server.start("loop", "/mnt/zeroes.img", node, "--create", "16M", "--verbose");
    await sh(`dd if=/dev/urandom of=${node} bs=1M count=16 oflag=direct status=none`);
    await sh(`fallocate -z -o 0 -l 4M ${node}; fallocate -p -o 4M -l 4M ${node}`);
    expect(Number(await sh("stat -c %b /mnt/zeroes.img"))).toBe((12 * MIB) / 512);
    expect(readDirect(node, 0, 8 * MIB)).toEqual(new Uint8Array(8 * MIB));
    expect(await server.stop()).toBe(0);
    const lines = (await server.errors).split("\n");
    expect(lines).toContain(`tsbuse: write zeroes offset 0 length ${4 * MIB} no-hole`);
    expect(lines).toContain(`tsbuse: write zeroes offset ${4 * MIB} length ${4 * MIB}`);
  });

  test("a file that a kernel loop device has is refused", async () => {
    await sh("modprobe loop; truncate -s 1M /mnt/taken.img; losetup /dev/loop0 /mnt/taken.img");
    const end = await run([BINARY, "loop", "/mnt/taken.img", other]);
    await sh("losetup -d /dev/loop0");
    expect(end.status).toBe(1);
    expect(end.stderr).toMatch(/^tsbuse: \/mnt\/taken.img is in use by \/dev\/loop0: .*\n$/);
  });

  test("a device on top of one that turns says that it turns", async () => {
    await Server.start("ramdisk", "16M", node);
    await sh(`echo 1 > /sys/block/${disk.name}/queue/rotational`);
    await Server.start("loop", node, other);
    expect(neighbour.queue("rotational")).toBe("1");
  });
});
