/** Goal: a node describes its device correctly, is never taken from another user, and is free again afterwards. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { libc } from "tsbuse";
import { BINARY, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { ALL_TRANSPORTS, describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;

function nodeSize(path: string): number {
  const fd = libc.unwrap(libc.open(path, libc.O_RDONLY), `open ${path}`);
  const size = libc.blockDeviceSize(fd);
  libc.close(fd);
  return size;
}

describeTransports((transport, disk, neighbour) => {
  const { path: node } = disk;
  const { path: other } = neighbour;

  test("BLKGETSIZE64 is the size asked for, up to 1 TiB", async () => {
    for (const [words, bytes] of [
      ["4K", 4096],
      ["512M", 512 * MIB],
      ["1.5G", 1536 * MIB],
      ["1T", 2 ** 40],
    ] as const) {
      const server = await Server.start("ramdisk", words, node);
      expect(server.path).toBe(node);
      expect(nodeSize(node)).toBe(bytes);
      expect(await server.stop()).toBe(0);
      expect(disk.size).toBe(0);
      expect(existsSync(node)).toBe(transport.nodeStays);
    }
  });

  test("a RAM disk announces trim and write zeroes, 512-byte blocks, and no cache", async () => {
    await Server.start("ramdisk", "16M", node);
    expect(disk.queue("logical_block_size")).toBe("512");
    expect(Number(disk.queue("discard_max_bytes"))).toBeGreaterThan(0);
    expect(Number(disk.queue("write_zeroes_max_bytes"))).toBeGreaterThan(0);
    expect(disk.queue("write_cache")).toBe("write through");
    expect(disk.queue("rotational")).toBe("0");
    expect(disk.attribute("ro")).toBe("0");
  });

  test("--block-size is the node's", async () => {
    for (const size of ["1024", "4096"]) {
      const server = await Server.start("ramdisk", "16M", node, "--block-size", size);
      expect(disk.queue("logical_block_size")).toBe(size);
      await server.stop();
    }
  });

  test("a read-only device is a read-only node, and the next one is not", async () => {
    const server = await Server.start("deadbeef", "1M", node);
    expect(disk.attribute("ro")).toBe("1");
    const write = await run(["dd", "if=/dev/zero", `of=${node}`, "bs=4k", "count=1", "conv=fsync"]);
    expect(write.status).not.toBe(0);
    expect(await sh(`od -An -tx1 -N8 ${node}`)).toBe("de ad be ef de ad be ef");
    await server.stop();
    await Server.start("ramdisk", "1M", node);
    expect(disk.attribute("ro")).toBe("0");
    await sh(`dd if=/dev/zero of=${node} bs=4k count=1 conv=fsync status=none`);
  });

  test("--read-only refuses writes to a device that has them", async () => {
    await Server.start("ramdisk", "1M", node, "--read-only");
    expect(disk.attribute("ro")).toBe("1");
  });

  test("a node that is served is not taken over, and goes on", async () => {
    const first = await Server.start("ramdisk", "1M", node);
    await sh(`echo mine | dd of=${node} conv=fsync status=none`);
    expect(await refusal("ramdisk", "2M", node)).toMatch(
      new RegExp(`^tsbuse: ${node} is served by process ${first.pid}, .*\n$`),
    );
    expect(await sh(`head -c 4 ${node}`)).toBe("mine");
  });

  test("two processes that want the same node at once: one gets it, the other says so", async () => {
    const words = [BINARY, "ramdisk", "1M", node, "--run", "sleep 1"];
    const ends = await Promise.all([run(words), run(words)]);
    expect(ends.map((end) => end.status).toSorted()).toEqual([0, 1]);
    expect(ends.map((end) => end.stderr).join("")).toMatch(
      new RegExp(`^tsbuse: ${node} (is served by|has just been taken)`),
    );
  });

  test("a node that is mounted is not taken, not even when its server was killed", async () => {
    const server = await Server.start("ramdisk", "32M", node);
    await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/held; mount ${node} /mnt/held`);
    try {
      expect(await server.stop("SIGKILL")).not.toBe(0);
      expect(await refusal("ramdisk", "1M", node)).toBe(
        `tsbuse: ${node} is mounted at /mnt/held: unmount it first\n`,
      );
    } finally {
      await sh("umount /mnt/held");
    }
    await Server.start("ramdisk", "1M", node);
  });

  test("a node that a device mapper holds is not taken", async () => {
    const server = await Server.start("ramdisk", "32M", node);
    await sh(`dmsetup create held --table "0 2048 linear ${node} 0"`);
    try {
      await server.stop("SIGKILL");
      expect(await refusal("ramdisk", "1M", node)).toMatch(transport.heldByMapper);
    } finally {
      await sh("dmsetup remove held");
    }
  });

  test("the first node that is free is taken where none is named", async () => {
    await Server.start("ramdisk", "1M", node);
    const server = await Server.start("ramdisk", "2M", transport.any);
    expect(server.path).toBe(other);
    expect(nodeSize(other)).toBe(2 * MIB);
  });

  test("a device that cannot be is refused before the node is touched", async () => {
    expect(await refusal("loop", "/nonexistent.img", node)).toMatch(
      /^tsbuse: \/nonexistent.img does not exist: .*\n$/,
    );
    expect(disk.size).toBe(0);
  });

  test("--run sets TSBUSE_DEVICE, detaches, and exits with the command's status", async () => {
    const end = await run([BINARY, "ramdisk", "1M", node, "--run", 'echo "on $TSBUSE_DEVICE"; exit 7']);
    expect(end).toEqual({ status: 7, stdout: `${node}\non ${node}\n`, stderr: "" });
    expect(disk.size).toBe(0);
  });

  test("--daemon returns when the device is usable, and the daemon ends on SIGTERM", async () => {
    const end = await run([BINARY, "ramdisk", "1M", node, "--daemon", "--pid-file", "/run/tsbuse.pid"]);
    expect(end).toEqual({ status: 0, stdout: `${node}\n`, stderr: "" });
    expect(nodeSize(node)).toBe(MIB);
    const pid = Number(readFileSync("/run/tsbuse.pid", "utf8"));
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ");
    expect(fields?.[3], "session").toBe(String(pid));
    expect(await sh(`readlink /proc/${pid}/cwd; readlink /proc/${pid}/fd/2`)).toBe("/\n/dev/null");
    process.kill(pid, "SIGTERM");
    await until("the daemon has ended", () => !existsSync(`/proc/${pid}`) && !existsSync("/run/tsbuse.pid"));
    await disk.untilFree();
  });

  test("--daemon reports a failure of the child, and exits with its status", async () => {
    expect(await refusal("loop", "/nonexistent.img", node, "--daemon")).toMatch(
      /^tsbuse: \/nonexistent.img does not exist: /,
    );
  });

  test("readiness is told to a service manager", async () => {
    const listener = Bun.spawn(["socat", "-u", "UNIX-RECV:/run/notify", "STDOUT"], { stdout: "pipe" });
    await until("the listener is up", () => existsSync("/run/notify"));
    const words = ["ramdisk", "1M", node, "--run", "kill -INT $PPID; sleep 5"];
    const end = await run(["env", "NOTIFY_SOCKET=/run/notify", BINARY, ...words]);
    expect(end.status).toBe(130);
    listener.kill();
    expect(await listener.stdout.text()).toBe("READY=1STOPPING=1");
  });
}, ALL_TRANSPORTS);
