/** Goal: a file on ext4 gets many requests at once, and none is lost or misdirected. */
import { beforeEach, expect, test } from "bun:test";
import { VERIFY } from "../support/fio.ts";
import { Server } from "../support/server.ts";
import { sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

describeTransports((transport, disk, neighbour) => {
  const { path: node } = disk;
  const { path: other } = neighbour;

  beforeEach(async () => {
    await Server.start("ramdisk", "160M", node);
    await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/small; mount ${node} /mnt/small`);
  });

  const LOOP = ["loop", "/mnt/small/f.img", other, "--create", "32M"];

  /** Writes and reads 12 MiB at random, 32 requests at a time, and verifies each read. */
  const JOB =
    `fio --name=verify --filename=${other} --direct=1 --ioengine=libaio --iodepth=32 --size=12M --bsrange=4k-64k` +
    ` --fdatasync=64 --trim_backlog=8 --end_fsync=1 ${VERIFY.join(" ")}`;

  test.each<[string, string[]]>([
    ["around the page cache", ["--direct"]],
    ["from an offset", ["--offset", "4096"]],
  ])("has many requests at once, %s", async (_, options) => {
    const server = await Server.start(...LOOP, ...options);
    await sh(JOB);
    // Drop the caches, so that the data comes from the disk.
    await sh(`cp ${other} /run/before; sync; echo 3 > /proc/sys/vm/drop_caches; cmp ${other} /run/before`);
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toBe("");
    await sh("umount /mnt/small");
  });

  // ublk itself requires io_uring.
  if (transport.name !== "nbd") return;

  test("is served where there is no io_uring, one request after the other", async () => {
    await sh("sysctl -q kernel.io_uring_disabled=2");
    try {
      const server = await Server.start(...LOOP, "--direct", "--verbose");
      await sh(JOB);
      expect(await server.stop()).toBe(0);
      expect((await server.errors).split("\n")[0]).toBe(
        "tsbuse: /mnt/small/f.img is served one request at a time: io_uring_setup: Operation not permitted",
      );
    } finally {
      await sh("sysctl -q kernel.io_uring_disabled=0; umount /mnt/small");
    }
  });
});
