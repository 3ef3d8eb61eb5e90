/** Goal: an overlay file keeps what it acknowledged, whichever process is killed, and refuses what it cannot keep. */
import { afterEach, describe, expect, test } from "bun:test";
import { errno } from "tsbuse";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { errorSeen, TestNode, TRANSPORTS } from "../support/transports.ts";

const BLOCK = 4096;
const OVERLAY = "/mnt/small/disk.overlay";

describe.each(TRANSPORTS)("$name", (transport) => {
  const disk = new TestNode(transport, 0);
  const lower = new TestNode(transport, 1);
  const node = disk.path;

  /** The server with its files on the small file system. */
  let upper: Server | undefined;

  afterEach(async () => {
    await sh("rm -f /mnt/fail");
    await upper?.stop("SIGKILL");
    upper = undefined;
    await sh("umount /mnt/small 2>/dev/null || true");
    await endServers();
    await disk.untilFree();
    await lower.untilFree();
    await sh("rm -f /mnt/*.img");
  });

  async function serveOverlay(base = "/mnt/base.img"): Promise<Server> {
    upper = await Server.start("loop", base, node, "--layer", `cow:file=${OVERLAY}`);
    return upper;
  }

  async function serveFile(): Promise<Server> {
    upper = await Server.start("loop", "/mnt/small/disk.img", node, "--queues", "2");
    return upper;
  }

  /** Makes a file system of 3 MiB at /mnt/small, and a base. */
  async function makeFileSystem(type: string, ...layers: string[]): Promise<void> {
    await sh("mkdir -p /mnt/small; truncate -s 16M /mnt/base.img");
    if (type === "tmpfs") return void (await sh("mount -t tmpfs -o size=3M none /mnt/small"));
    await Server.start("ramdisk", "3M", lower.path, ...layers);
    await sh(`mkfs.ext4 -q -O ^has_journal ${lower.path}; mount ${lower.path} /mnt/small`);
  }

  test.each(["tmpfs", "ext4"])(
    "a full %s: the write that does not fit fails, and all others stay",
    async (type) => {
      await makeFileSystem(type);
      const first = await serveOverlay();
      let blocks = 0;
      let result = BLOCK;
      for (; result === BLOCK; blocks += 1)
        result = writeDirect(node, blocks * BLOCK, pattern(BLOCK, blocks + 1));
      blocks -= 1;
      expect(result).toBe(-errorSeen(transport, errno.ENOSPC));
      expect(blocks).toBeGreaterThan(300);
      await sh(`sync -d ${node}`);
      expect(await first.stop()).toBe(0);
      await serveOverlay();
      for (let block = 0; block < blocks; block += 1)
        expect(readDirect(node, block * BLOCK, BLOCK)).toEqual(pattern(BLOCK, block + 1));
    },
  );

  test.each([
    ["an overlay file", serveOverlay, /changes are refused;/g, -errno.EIO],
    ["a file", serveFile, /no flush succeeds any more/g, BLOCK],
  ] as const)("%s on a disk that fails a flush: no other succeeds, and reads go on", async (...row) => {
    const [name, serveIt, message, written] = row;
    await makeFileSystem("ext4", "--layer", "error:command=write,trigger=/mnt/fail");
    await sh("truncate -s 1M /mnt/small/disk.img");
    const server = await serveIt();
    expect(writeDirect(node, 0, pattern(BLOCK, 1))).toBe(BLOCK);
    await sh(`sync -d ${node}`);
    expect(writeDirect(node, BLOCK, pattern(BLOCK, 2))).toBe(BLOCK);
    await sh("touch /mnt/fail");
    expect((await run(["sync", "-d", node])).status).toBe(1);
    await sh("rm /mnt/fail");
    // Through every queue.
    for (const cpu of ["0", "1"])
      expect((await run(["taskset", "-c", cpu, "sync", "-d", node])).status).toBe(1);
    expect(writeDirect(node, 2 * BLOCK, pattern(BLOCK, 3))).toBe(written);
    expect(readDirect(node, 0, BLOCK)).toEqual(pattern(BLOCK, 1));
    const status = await server.stop();
    expect((await server.errors).match(message)).toHaveLength(1);
    if (name === "a file") return;
    expect(status).toBe(1);
    await serveIt();
    expect(readDirect(node, 0, BLOCK)).toEqual(pattern(BLOCK, 1));
  });

  test("what was acknowledged survives a server that is killed", async () => {
    await makeFileSystem("tmpfs");
    const server = await serveOverlay();
    const written = pattern(100 * BLOCK, 21);
    expect(writeDirect(node, 512, written)).toBe(written.length);
    await server.stop("SIGKILL");
    await disk.untilFree();
    const next = await serveOverlay();
    expect(readDirect(node, 512, written.length)).toEqual(written);
    expect(await next.stop()).toBe(0);
  });

  test("another device of the same size is refused before a node is touched", async () => {
    await makeFileSystem("tmpfs");
    await sh("cp --sparse=always /mnt/base.img /mnt/copy.img; truncate -s 16M /mnt/other.img");
    await sh("mkfs.ext4 -q /mnt/other.img");
    expect(await (await serveOverlay()).stop()).toBe(0);
    const end = await run([BINARY, "loop", "/mnt/other.img", node, "--layer", `cow:file=${OVERLAY}`]);
    expect(end).toEqual({
      status: 1,
      stdout: "",
      stderr: `tsbuse: ${OVERLAY} is an overlay of a device with other contents: give the one it was made for\n`,
    });
    expect(disk.isAttached).toBe(false);
    expect(await (await serveOverlay("/mnt/copy.img")).stop()).toBe(0);
  });
});
