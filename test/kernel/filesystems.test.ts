/** Goal: the main purpose. A file system on the device stores a real tree, returns it, and is clean afterwards. */
import { beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Server } from "../support/server.ts";
import { sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

/** An existing tree of files and directories. */
const TREE = join(import.meta.dir, "../../src");

const FILE_SYSTEMS = [
  { name: "ext4", make: "mkfs.ext4 -q", check: "fsck.ext4 -fn" },
  { name: "xfs", make: "mkfs.xfs -q", check: "xfs_repair -n" },
  { name: "btrfs", make: "mkfs.btrfs -q", check: "btrfs check" },
] as const;

/** A file longer than the longest request, without repetitions. */
const LARGE = "/run/large";

beforeAll(() => sh(`dd if=/dev/urandom of=${LARGE} bs=1M count=48 status=none`));

describeTransports((_, disk) => {
  const { path: node } = disk;

  // A file system makes the same requests to either device: one is enough on the second.
  const DEVICES = [
    { name: "loop", words: ["loop", "/mnt/fs.img", node, "--create", "512M"], systems: FILE_SYSTEMS },
    { name: "ramdisk", words: ["ramdisk", "512M", node], systems: FILE_SYSTEMS.slice(0, 1) },
  ] as const;

  for (const device of DEVICES) {
    for (const { name, make, check } of device.systems) {
      test(`${name} on ${device.name}: make, mount, copy, compare from the device, unmount, check`, async () => {
        await sh("rm -f /mnt/fs.img; mkdir -p /mnt/fs");
        const server = await Server.start(...device.words);
        await sh(`${make} ${node} && mount -t ${name} ${node} /mnt/fs`);
        await sh(`cp -a ${TREE} /mnt/fs/tree && cp ${LARGE} /mnt/fs/large`);
        await sh("umount /mnt/fs && echo 3 > /proc/sys/vm/drop_caches");
        await sh(`mount -t ${name} ${node} /mnt/fs`);
        await sh(`diff -r ${TREE} /mnt/fs/tree && cmp ${LARGE} /mnt/fs/large`);
        await sh(`rm -r /mnt/fs/tree && fstrim /mnt/fs && umount /mnt/fs && ${check} ${node}`);
        expect(await server.stop()).toBe(0);
      }, 300_000);
    }
  }

  test("a partition table and a file system on a partition, there as soon as the path is printed", async () => {
    await sh("rm -f /mnt/disk.img; mkdir -p /mnt/fs");
    const first = await Server.start("loop", "/mnt/disk.img", node, "--create", "256M");
    await sh(`echo ',,L' | sfdisk -q ${node} && mkfs.ext4 -q ${node}p1`);
    await sh(`mount ${node}p1 /mnt/fs && echo here > /mnt/fs/file && umount /mnt/fs`);
    expect(await first.stop()).toBe(0);
    // Repeated, because a scan that races with the start of the server would sometimes find nothing.
    for (let i = 0; i < 5; i += 1) {
      const server = await Server.start("loop", "/mnt/disk.img", node);
      expect(await sh(`ls ${node}p1 && blockdev --getsize64 ${node}p1`)).toBe(`${node}p1\n${255 * 2 ** 20}`);
      expect(await server.stop()).toBe(0);
    }
    await Server.start("loop", "/mnt/disk.img", node, "--read-only");
    await sh(`mount -o ro,noload ${node}p1 /mnt/fs`);
    expect(await sh("cat /mnt/fs/file")).toBe("here");
  }, 300_000);

  test("a file system with blocks of 1 KiB mounts: the device's blocks are 512 bytes", async () => {
    await sh("mkdir -p /mnt/fs");
    await Server.start("ramdisk", "32M", node);
    await sh(`mkfs.ext4 -q -b 1024 ${node} && mount ${node} /mnt/fs && umount /mnt/fs`);
  });
});
