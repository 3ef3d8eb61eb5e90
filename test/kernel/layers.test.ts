/** Goal: layers work under the kernel as they do alone: the base is unchanged, errors arrive, requests are logged. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { errno } from "tsbuse";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { endServers, Server } from "../support/server.ts";
import { sh, until } from "../support/shell.ts";
import { describeTransports, errorSeen } from "../support/transports.ts";

const MIB = 2 ** 20;

describeTransports((transport, disk) => {
  const { path: node } = disk;

  /** Serves /mnt/base.img, with changes in /mnt/small.overlay. */
  function serveOverlay(): Promise<Server> {
    return Server.start("loop", "/mnt/base.img", node, "--layer", "cow:file=/mnt/small.overlay");
  }

  test("cow over a file that cannot be written: the file keeps its checksum, the overlay continues", async () => {
    await sh("truncate -s 64M /mnt/base.img; mkfs.ext4 -q /mnt/base.img; chmod 400 /mnt/base.img");
    await sh("mkdir -p /mnt/small");
    const before = await sh("sha256sum /mnt/base.img");
    const first = await serveOverlay();
    await sh(`mount ${node} /mnt/small; dd if=/dev/urandom of=/mnt/small/data bs=1M count=8 status=none`);
    const sum = await sh("sha256sum /mnt/small/data; umount /mnt/small");
    expect(await first.stop()).toBe(0);
    expect(await sh("sha256sum /mnt/base.img")).toBe(before);

    const second = await serveOverlay();
    await sh(`fsck.ext4 -fn ${node} >/dev/null; mount ${node} /mnt/small`);
    expect(await sh("sha256sum /mnt/small/data")).toBe(sum);
    await sh("rm /mnt/small/data; fstrim /mnt/small; umount /mnt/small");
    expect(await second.stop()).toBe(0);
    expect(await sh("sha256sum /mnt/base.img")).toBe(before);
  }, 300_000);

  test.each(["EIO", "ENOSPC", "EPERM"] as const)(
    "%s of the error layer reaches pread and pwrite, and the device lives on",
    async (code) => {
      const layer = `error:errno=${code},trigger=/mnt/fail`;
      const server = await Server.start("ramdisk", "16M", node, "--layer", layer);
      const written = pattern(4096, 22);
      expect(writeDirect(node, 0, written)).toBe(4096);
      await sh("touch /mnt/fail");
      const seen = errorSeen(transport, errno[code]);
      expect(readDirect(node, 0, 4096)).toBe(-seen);
      expect(writeDirect(node, 0, pattern(4096, 23))).toBe(-seen);
      await sh("rm /mnt/fail");
      expect(readDirect(node, 0, 4096)).toEqual(written);
      expect(await server.stop()).toBe(0);
    },
  );

  test("the log layer has a line for each request, and the stats layer counts the same", async () => {
    const layers = ["--layer", "stats", "--layer", "log:file=/mnt/requests.log"];
    const server = await Server.start("ramdisk", "16M", node, ...layers);
    expect(writeDirect(node, 8192, pattern(4096, 24))).toBe(4096);
    await sh(`blkdiscard -o 1M -l 1M ${node}; blkdiscard -z -o 2M -l 1M ${node}`);
    expect(await server.stop()).toBe(0);
    const lines = readFileSync("/mnt/requests.log", "utf8").trimEnd().split("\n");
    const requests = lines.map((line) => JSON.parse(line));
    const common = { fua: false, error: null };
    for (const [command, offset, length] of [
      ["write", 8192, 4096],
      ["trim", MIB, MIB],
      ["zero", 2 * MIB, MIB],
    ])
      expect(requests).toContainEqual(expect.objectContaining({ ...common, command, offset, length }));
    const writes = requests.filter(({ command }) => command === "write").length;
    expect(await server.errors).toContain(
      `stats: write: requests ${writes}, bytes ${4096 * writes}, errors 0,`,
    );
  });

  test("requests to the delay layer are on their way side by side", async () => {
    await Server.start("ramdisk", "16M", node, "--layer", "delay:write=3600000");
    const write = `dd if=/dev/zero of=${node} bs=4k count=1 oflag=direct status=none`;
    const writing = sh(`for i in 0 1 2 3 4 5 6 7; do ${write} seek=$i & done; wait`);
    await until("all are on their way", () => /\s8$/.test(disk.attribute("inflight")), 60_000);
    await endServers();
    await writing;
  });
});
