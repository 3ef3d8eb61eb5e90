/** Goal: a device changes its size while it is in use, and no user loses a byte without having agreed. */
import { describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { errno } from "tsbuse";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, refusal, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
const FILE = "/mnt/disk.img";

/** The ublk driver supports it since Linux 6.16. */
const CAN_UBLK = Bun.semver.satisfies((await sh("uname -r")).replace(/[+-].*/, ""), ">=6.16.0");

const resize = (...words: string[]) => run([BINARY, "resize", ...words]);
const done = (size: number) => ({ status: 0, stdout: `${size}\n`, stderr: "" });
const refused = (line: string) => ({ status: 1, stdout: "", stderr: `tsbuse: ${line}\n` });

describeTransports((transport, disk) => {
  const { path: node } = disk;

  if (transport.name === "ublk")
    test("a server killed in the middle leaves a node that is taken over as it was", async () => {
      const server = await Server.start("loop", FILE, node, "--create", "8M", "--recover");
      expect(writeDirect(node, 4 * MIB, pattern(4096, 7))).toBe(4096);
      truncateSync(FILE, 16 * MIB);
      await server.stop("SIGKILL");
      let next = await Server.start("recover", node, "loop", FILE);
      expect(disk.size).toBe(8 * MIB);
      expect(readDirect(node, 4 * MIB, 4096)).toEqual(pattern(4096, 7));
      if (CAN_UBLK) {
        expect(await resize(node)).toEqual(done(16 * MIB));
        await next.stop("SIGKILL");
        truncateSync(FILE, 12 * MIB);
        expect(await refusal("recover", node, "loop", FILE)).toContain(
          `${node} has ${16 * MIB} bytes in blocks of 512, this device ${12 * MIB} in blocks of 512`,
        );
        truncateSync(FILE, 16 * MIB);
        next = await Server.start("recover", node, "loop", FILE);
        expect(disk.size).toBe(16 * MIB);
      }
      // A killed server would leave its node waiting.
      expect(await next.stop()).toBe(0);
    });

  if (transport.name === "ublk" && !CAN_UBLK) {
    test("a kernel that cannot says so, and the file stays as it is", async () => {
      await Server.start("loop", FILE, node, "--create", "8M");
      expect(await resize(node, "16M")).toEqual(
        refused(
          `${node} cannot be resized: the ublk driver of this kernel cannot, use Linux 6.16 or newer, or an NBD node`,
        ),
      );
      expect(Bun.file(FILE).size).toBe(8 * MIB);
      expect(disk.size).toBe(8 * MIB);
    });
    return;
  }

  const queues: [string[]][] =
    transport.name === "ublk" ? [[["--queues", "1"]], [["--queues", "2"]], [["--verbose"]]] : [[[]]];
  test.each(queues)(
    "a mounted file system grows with its file, under load: %j",
    async (options) => {
      await Server.start("loop", FILE, node, "--create", "64M", ...options);
      await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/fs; mount ${node} /mnt/fs; echo kept >/mnt/fs/kept`);
      const load = fio("/mnt/fs/load", "--size=16M", "--bs=4k", "--iodepth=16", ...VERIFY);
      truncateSync(FILE, 128 * MIB);
      expect(await resize(node)).toEqual(done(128 * MIB));
      expect(disk.size).toBe(128 * MIB);
      expect(await resize(node, "192M")).toEqual(done(192 * MIB));
      expect(await load).toMatchObject({ errors: 0 });
      await sh(
        `resize2fs ${node} 2>&1; dd if=/dev/urandom of=/mnt/fs/large bs=1M count=100 conv=fsync status=none`,
      );
      expect(await resize(node, "32M")).toEqual(
        refused(
          `${node} is mounted at /mnt/fs: end that first, or lose what lies beyond ${32 * MIB} bytes, with --force`,
        ),
      );
      await sh(`cd /; umount /mnt/fs; fsck.ext4 -fn ${node}; mount ${node} /mnt/fs; cat /mnt/fs/kept`);
    },
    120_000,
  );

  test("a device that nobody uses shrinks, and its file does not", async () => {
    const server = await Server.start("loop", FILE, node, "--create", "16M", "--block-size", "4096");
    expect(writeDirect(node, 12 * MIB, pattern(4096, 3))).toBe(4096);
    expect(await resize(node, "8193K")).toEqual(
      refused(`${8193 * 1024} bytes are not a whole number of blocks of 4096: give ${8196 * 1024}`),
    );
    expect(await resize(node, "8M")).toEqual(done(8 * MIB));
    expect(disk.size).toBe(8 * MIB);
    expect(Bun.file(FILE).size).toBe(16 * MIB);
    // Two at once: either one follows the other, or one is told to try again.
    const both = await Promise.all([resize(node, "12M"), resize(node, "14M")]);
    for (const { status, stderr } of both)
      if (status !== 0)
        expect(stderr).toBe(`tsbuse: ${node} is being resized: try again when that is done\n`);
    expect(both.map(({ status }) => status)).toContain(0);
    expect(await resize(node)).toEqual(done(16 * MIB));
    expect(readDirect(node, 12 * MIB, 4096)).toEqual(pattern(4096, 3));
    truncateSync(FILE, 4 * MIB);
    expect(await resize(node)).toEqual(
      refused(`${FILE} has shrunk to ${4 * MIB} bytes: give SIZE to shrink the device`),
    );
    expect(readDirect(node, 8 * MIB, 4096)).toBe(-errno.EIO);
    expect(disk.size).toBe(16 * MIB);
    expect(await resize(node, "4M")).toEqual(done(4 * MIB));
    expect(await server.stop()).toBe(0);
  });

  describe("refused", () => {
    test.each([
      [["deadbeef", "1M"], []],
      [
        ["loop", FILE, "--create", "4M"],
        ["--layer", "cow"],
      ],
    ])("%j %j keeps its size", async ([device = "", ...words], options) => {
      await Server.start(device, ...words.slice(0, 1), node, ...words.slice(1), ...options);
      expect(await resize(node, "8M")).toEqual(
        refused(`${node} cannot be resized: its device, or a layer before it, keeps its size`),
      );
    });

    test("what nobody serves", async () => {
      expect(await resize(node, "8M")).toEqual(
        refused(`no process of tsbuse serves ${node}: see "tsbuse list"`),
      );
    });
  });

  test("a device of one's own, behind a layer, has its method called", async () => {
    await Bun.write(
      "/mnt/own.ts",
      `const store = new Uint8Array(8 << 20);
      export default {
        size: 1 << 20,
        read(target, offset) { target.set(store.subarray(offset, offset + target.length)); },
        write(source, offset) { store.set(source, offset); },
        async resize(size) {
          if (size > store.length) throw new Error("no more than 8 MiB");
          await Bun.sleep(1);
          this.size = size ?? store.length;
        },
      };`,
    );
    await Server.start("run", "/mnt/own.ts", node, "--layer", "stats");
    expect(await resize(node, "4M")).toEqual(done(4 * MIB));
    expect(await resize(node, "16M")).toEqual(refused("no more than 8 MiB"));
    expect(await resize(node)).toEqual(done(8 * MIB));
    expect(writeDirect(node, 8 * MIB - 4096, pattern(4096, 5))).toBe(4096);
    expect(disk.size).toBe(8 * MIB);
  });
});
