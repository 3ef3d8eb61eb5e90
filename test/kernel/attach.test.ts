/** Goal: a node says of itself what the device is, is never taken from somebody, and is free again afterwards. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { libc } from "tsbuse";
import { BINARY, endServers, Server, untilFree } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";

afterEach(async () => {
  await endServers();
  await untilFree("nbd0");
  await untilFree("nbd1");
});

const MIB = 2 ** 20;

function nodeSize(path: string): number {
  const fd = libc.unwrap(libc.open(path, libc.O_RDONLY), `open ${path}`);
  const size = libc.blockDeviceSize(fd);
  libc.close(fd);
  return size;
}

function queue(name: string, attribute: string): string {
  return readFileSync(`/sys/block/${name}/queue/${attribute}`, "utf8").trim();
}

test("BLKGETSIZE64 is the size asked for, up to 1 TiB", async () => {
  for (const [words, bytes] of [
    ["4K", 4096],
    ["512M", 512 * MIB],
    ["1.5G", 1536 * MIB],
    ["1T", 2 ** 40],
  ] as const) {
    const server = await Server.start("ramdisk", words, "/dev/nbd0");
    expect(server.path).toBe("/dev/nbd0");
    expect(nodeSize("/dev/nbd0")).toBe(bytes);
    expect(await server.stop()).toBe(0);
    expect(nodeSize("/dev/nbd0")).toBe(0);
  }
});

test("a RAM disk announces trim and write zeroes, 512-byte blocks, and no cache", async () => {
  await Server.start("ramdisk", "16M", "/dev/nbd0");
  expect(queue("nbd0", "logical_block_size")).toBe("512");
  expect(Number(queue("nbd0", "discard_max_bytes"))).toBeGreaterThan(0);
  expect(Number(queue("nbd0", "write_zeroes_max_bytes"))).toBeGreaterThan(0);
  expect(queue("nbd0", "write_cache")).toBe("write through");
  expect(queue("nbd0", "rotational")).toBe("0");
  expect(readFileSync("/sys/block/nbd0/ro", "utf8").trim()).toBe("0");
});

test("--block-size is the node's", async () => {
  for (const size of ["512", "1024", "2048", "4096"]) {
    const server = await Server.start("ramdisk", "16M", "/dev/nbd0", "--block-size", size);
    expect(queue("nbd0", "logical_block_size")).toBe(size);
    await server.stop();
  }
});

test("a read-only device is a read-only node, and the next one is not", async () => {
  const server = await Server.start("deadbeef", "1M", "/dev/nbd0");
  expect(readFileSync("/sys/block/nbd0/ro", "utf8").trim()).toBe("1");
  const write = await run(["dd", "if=/dev/zero", "of=/dev/nbd0", "bs=4k", "count=1", "conv=fsync"]);
  expect(write.status).not.toBe(0);
  expect(await sh("od -An -tx1 -N8 /dev/nbd0")).toBe("de ad be ef de ad be ef");
  await server.stop();
  await Server.start("ramdisk", "1M", "/dev/nbd0");
  expect(readFileSync("/sys/block/nbd0/ro", "utf8").trim()).toBe("0");
  await sh("dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 conv=fsync status=none");
});

test("--read-only refuses writes to a device that has them", async () => {
  await Server.start("ramdisk", "1M", "/dev/nbd0", "--read-only");
  expect(readFileSync("/sys/block/nbd0/ro", "utf8").trim()).toBe("1");
});

test("a node that is served is not taken over, and goes on", async () => {
  const first = await Server.start("ramdisk", "1M", "/dev/nbd0");
  await sh("echo mine | dd of=/dev/nbd0 conv=fsync status=none");
  const second = await run([BINARY, "ramdisk", "2M", "/dev/nbd0"]);
  expect(second.status).toBe(1);
  expect(second.stdout).toBe("");
  expect(second.stderr).toMatch(new RegExp(`^tsbuse: /dev/nbd0 is served by process ${first.pid}, .*\n$`));
  expect(await sh("head -c 4 /dev/nbd0")).toBe("mine");
});

test("two processes that want the same node at once: one gets it, the other says so", async () => {
  const words = [BINARY, "ramdisk", "1M", "/dev/nbd0", "--run", "sleep 1"];
  const ends = await Promise.all([run(words), run(words)]);
  expect(ends.map((end) => end.status).toSorted()).toEqual([0, 1]);
  expect(ends.map((end) => end.stderr).join("")).toMatch(
    /^tsbuse: \/dev\/nbd0 (is served by|has just been taken)/,
  );
});

test("a node that is mounted is not taken, not even when its server was killed", async () => {
  const server = await Server.start("ramdisk", "32M", "/dev/nbd0");
  await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/held; mount /dev/nbd0 /mnt/held");
  try {
    expect(await server.stop("SIGKILL")).not.toBe(0);
    const second = await run([BINARY, "ramdisk", "1M", "/dev/nbd0"]);
    expect(second.status).toBe(1);
    expect(second.stderr).toBe("tsbuse: /dev/nbd0 is mounted at /mnt/held: unmount it first\n");
  } finally {
    await sh("umount /mnt/held");
  }
  await Server.start("ramdisk", "1M", "/dev/nbd0");
});

test("a node that a device mapper holds is not taken", async () => {
  const server = await Server.start("ramdisk", "32M", "/dev/nbd0");
  await sh('dmsetup create held --table "0 2048 linear /dev/nbd0 0"');
  try {
    await server.stop("SIGKILL");
    const second = await run([BINARY, "ramdisk", "1M", "/dev/nbd0"]);
    expect(second.status).toBe(1);
    expect(second.stderr).toMatch(/^tsbuse: \/dev\/nbd0 is held by \/dev\/dm-\d+: release it there first\n$/);
  } finally {
    await sh("dmsetup remove held");
  }
});

test("auto takes the first node that is free", async () => {
  await Server.start("ramdisk", "1M", "/dev/nbd0");
  const server = await Server.start("ramdisk", "2M", "auto");
  expect(server.path).toBe("/dev/nbd1");
  expect(nodeSize("/dev/nbd1")).toBe(2 * MIB);
});

test("a node that does not exist is named, with the last one that does", async () => {
  const end = await run([BINARY, "ramdisk", "1M", "/dev/nbd99"]);
  expect(end.status).toBe(1);
  expect(end.stderr).toMatch(/^tsbuse: \/dev\/nbd99 does not exist: the last node is \/dev\/nbd15, .*\n$/);
});

test("a missing node file is made", async () => {
  await sh("rm /dev/nbd1");
  const server = await Server.start("ramdisk", "1M", "/dev/nbd1");
  expect(nodeSize("/dev/nbd1")).toBe(MIB);
  await server.stop();
});

test("a device that cannot be is refused before the node is touched", async () => {
  const end = await run([BINARY, "loop", "/nonexistent.img", "/dev/nbd0"]);
  expect(end.status).toBe(1);
  expect(end.stderr).toMatch(/^tsbuse: \/nonexistent.img does not exist: .*\n$/);
  expect(nodeSize("/dev/nbd0")).toBe(0);
});

test("--create leaves no file behind when the node is not to be had", async () => {
  await Server.start("ramdisk", "1M", "/dev/nbd0");
  const end = await run([BINARY, "loop", "/mnt/new.img", "/dev/nbd0", "--create", "1M"]);
  expect(end.status).toBe(1);
  expect(existsSync("/mnt/new.img")).toBe(false);
});

test("--run sets TSBUSE_DEVICE, detaches, and exits with the command's status", async () => {
  const end = await run([BINARY, "ramdisk", "1M", "/dev/nbd0", "--run", 'echo "on $TSBUSE_DEVICE"; exit 7']);
  expect(end).toEqual({ status: 7, stdout: "/dev/nbd0\non /dev/nbd0\n", stderr: "" });
  expect(nodeSize("/dev/nbd0")).toBe(0);
});

test("--daemon returns when the device is usable, and the daemon ends on SIGTERM", async () => {
  const end = await run([BINARY, "ramdisk", "1M", "/dev/nbd0", "--daemon", "--pid-file", "/run/tsbuse.pid"]);
  expect(end).toEqual({ status: 0, stdout: "/dev/nbd0\n", stderr: "" });
  expect(nodeSize("/dev/nbd0")).toBe(MIB);
  const pid = Number(readFileSync("/run/tsbuse.pid", "utf8"));
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ");
  expect(fields?.[3], "session").toBe(String(pid));
  expect(await sh(`readlink /proc/${pid}/cwd; readlink /proc/${pid}/fd/2`)).toBe("/\n/dev/null");
  process.kill(pid, "SIGTERM");
  await until("the daemon has ended", () => !existsSync(`/proc/${pid}`) && !existsSync("/run/tsbuse.pid"));
  await untilFree("nbd0");
});

test("--daemon reports a failure of the child, and exits with its status", async () => {
  const end = await run([BINARY, "ramdisk", "1M", "/dev/nbd99", "--daemon"]);
  expect(end.status).toBe(1);
  expect(end.stderr).toMatch(/^tsbuse: \/dev\/nbd99 does not exist: /);
});

test("readiness is told to a service manager", async () => {
  const listener = Bun.spawn(["socat", "-u", "UNIX-RECV:/run/notify", "STDOUT"], { stdout: "pipe" });
  await until("the listener is up", () => existsSync("/run/notify"));
  const end = await run([
    "env",
    "NOTIFY_SOCKET=/run/notify",
    BINARY,
    "ramdisk",
    "1M",
    "/dev/nbd0",
    "--run",
    "kill -INT $PPID; sleep 5",
  ]);
  expect(end.status).toBe(130);
  listener.kill();
  expect(await listener.stdout.text()).toBe("READY=1STOPPING=1");
});

test("--verbose prints a line for each request", async () => {
  const server = await Server.start("ramdisk", "1M", "/dev/nbd0", "--verbose");
  await sh(
    "dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 seek=2 oflag=direct status=none; blkdiscard -o 65536 -l 4096 /dev/nbd0",
  );
  await server.stop();
  const lines = (await server.errors).split("\n");
  expect(lines).toContain("tsbuse: write offset 8192 length 4096");
  expect(lines).toContain("tsbuse: trim offset 65536 length 4096");
  expect(lines).toContain("tsbuse: disconnect");
});

test("nothing is read from the working directory at start", async () => {
  await sh(
    "mkdir -p /mnt/trap; cd /mnt/trap; echo 'TSBUSE_TRAP=1' > .env; echo 'preload = [\"./trap.ts\"]' > bunfig.toml; echo 'process.exit(99)' > trap.ts",
  );
  const end = await run([
    "/bin/sh",
    "-c",
    `cd /mnt/trap && ${BINARY} ramdisk 1M /dev/nbd0 --run 'echo "trap:$TSBUSE_TRAP"'`,
  ]);
  expect(end).toEqual({ status: 0, stdout: "/dev/nbd0\ntrap:\n", stderr: "" });
});
