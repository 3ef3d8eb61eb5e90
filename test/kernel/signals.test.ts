/** Goal: every way to end a server leaves the data on the device and the node free. */
import { afterEach, expect, test } from "bun:test";
import { openSync, closeSync, writeSync } from "node:fs";
import { endServers, Server, untilFree, BINARY } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { attachedThread } from "../../src/nbd/nodes.ts";

afterEach(async () => {
  await sh("umount /mnt/fs 2>/dev/null || true");
  await endServers();
  await untilFree("nbd0");
  await sh("rm -f /mnt/*.img");
});

/** What the issue of a signal may take, in milliseconds. */
const END_LIMIT_MS = 2000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

for (const signal of SIGNALS) {
  test(`${signal} when idle: exit 0 within 2 s, and the node attaches again at once`, async () => {
    const server = await Server.start("ramdisk", "16M", "/dev/nbd0");
    expect(await server.stop(signal, END_LIMIT_MS)).toBe(0);
    expect(await server.errors).toBe("");
    const next = await Server.start("ramdisk", "16M", "/dev/nbd0");
    expect(await next.stop()).toBe(0);
  });
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`${signal} under load: exit 0 within 2 s, and the node attaches again at once`, async () => {
    const server = await Server.start("ramdisk", "64M", "/dev/nbd0");
    const load = Bun.spawn(
      [
        "fio",
        "--name=load",
        "--filename=/dev/nbd0",
        "--rw=randrw",
        "--bs=4k",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=32",
        "--time_based",
        "--runtime=60",
        "--size=64M",
        "--output=/dev/null",
      ],
      { stdout: "ignore", stderr: "ignore" },
    );
    await until(
      "fio is at work",
      async () => Number((await sh("cat /sys/block/nbd0/stat")).trim().split(/\s+/)[0]) > 500,
      30_000,
    );
    expect(await server.stop(signal, END_LIMIT_MS)).toBe(0);
    expect(await load.exited).not.toBe(0);
    await Server.start("ramdisk", "16M", "/dev/nbd0");
  }, 60_000);
}

test("data that was written but not synced is on the device after SIGTERM", async () => {
  const server = await Server.start("loop", "/mnt/late.img", "/dev/nbd0", "--create", "16M");
  // Held open: closing the last file descriptor would write the data back without us.
  const fd = openSync("/dev/nbd0", "r+");
  const bytes = Buffer.alloc(8 * 2 ** 20, "written, not synced. ");
  writeSync(fd, bytes, 0, bytes.length, 0);
  expect(await server.stop("SIGTERM", END_LIMIT_MS)).toBe(0);
  closeSync(fd);
  expect(Buffer.from(await Bun.file("/mnt/late.img").slice(0, bytes.length).bytes()).equals(bytes)).toBe(
    true,
  );
});

test("data that cannot be written back is an error of the server's, not silence", async () => {
  await sh("mkdir -p /mnt/small; mount -t tmpfs -o size=1M none /mnt/small");
  const server = await Server.start("loop", "/mnt/small/full.img", "/dev/nbd0", "--create", "4M");
  const fd = openSync("/dev/nbd0", "r+");
  const bytes = Buffer.alloc(2 * 2 ** 20, "more than fits. ");
  writeSync(fd, bytes, 0, bytes.length, 0);
  expect(await server.stop("SIGTERM")).toBe(1);
  closeSync(fd);
  expect(await server.errors).toContain("/dev/nbd0: not all data could be written back: Input/output error");
  await sh("umount /mnt/small");
});

test("files written to a mounted file system are on the device after SIGTERM", async () => {
  const server = await Server.start("loop", "/mnt/mounted.img", "/dev/nbd0", "--create", "64M");
  await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/fs; mount /dev/nbd0 /mnt/fs; echo kept > /mnt/fs/file");
  expect(await server.stop("SIGTERM", END_LIMIT_MS)).toBe(0);
  expect(await server.errors).toContain("/dev/nbd0 is mounted at /mnt/fs");
  await sh("umount /mnt/fs");
  await untilFree("nbd0");
  await Server.start("loop", "/mnt/mounted.img", "/dev/nbd0");
  await sh("mount /dev/nbd0 /mnt/fs");
  expect(await sh("cat /mnt/fs/file")).toBe("kept");
  await sh("umount /mnt/fs");
});

test("kill -9, then attach again", async () => {
  for (let i = 0; i < 5; i += 1) {
    const server = await Server.start("ramdisk", "16M", "/dev/nbd0");
    await sh("dd if=/dev/zero of=/dev/nbd0 bs=1M count=4 oflag=direct status=none");
    expect(await server.stop("SIGKILL")).toBe(137);
    await untilFree("nbd0");
  }
});

test("disconnect by another process: the server flushes and exits 0", async () => {
  const server = await Server.start("loop", "/mnt/disconnect.img", "/dev/nbd0", "--create", "4M");
  await sh("printf kept | dd of=/dev/nbd0 status=none");
  expect(await run([BINARY, "disconnect", "/dev/nbd0"])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(await server.ended()).toBe(0);
  expect(await sh("head -c 4 /mnt/disconnect.img")).toBe("kept");
  const again = await run([BINARY, "disconnect", "/dev/nbd0"]);
  expect(again.status).toBe(1);
  expect(again.stderr).toMatch(/^tsbuse: \/dev\/nbd0 is not attached: .*\n$/);
});

test("disconnect refuses a mounted node, frees one left behind by a killed server", async () => {
  const server = await Server.start("ramdisk", "32M", "/dev/nbd0");
  await sh("mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/fs; mount /dev/nbd0 /mnt/fs");
  const refused = await run([BINARY, "disconnect", "/dev/nbd0"]);
  expect(refused.status).toBe(1);
  expect(refused.stderr).toMatch(/^tsbuse: \/dev\/nbd0 is mounted at \/mnt\/fs: .*\n$/);
  await server.stop("SIGKILL");
  await sh("umount -l /mnt/fs");
  const listed = JSON.parse((await run([BINARY, "list", "--json"])).stdout);
  if (listed.length > 0) expect((await run([BINARY, "disconnect", "/dev/nbd0"])).status).toBe(0);
  await untilFree("nbd0");
  await Server.start("ramdisk", "1M", "/dev/nbd0");
});

test("list names the device, its server, size and flags", async () => {
  const server = await Server.start("ramdisk", "16M", "/dev/nbd0");
  const { stdout } = await run([BINARY, "list", "--json"]);
  const [first] = JSON.parse(stdout);
  expect(first).toMatchObject({
    node: "/dev/nbd0",
    size: 16 * 2 ** 20,
    pid: server.pid,
    readOnly: false,
    trim: true,
  });
  const table = (await run([BINARY, "list"])).stdout;
  expect(table).toContain("/dev/nbd0");
  expect(table).toContain("16MiB");
  expect(table).toContain(String(server.pid));
});

test("terminal stop signals are ignored: the device goes on", async () => {
  const server = await Server.start("ramdisk", "16M", "/dev/nbd0");
  for (const signal of ["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const) process.kill(server.pid, signal);
  await sh("dd if=/dev/zero of=/dev/nbd0 bs=4k count=16 oflag=direct status=none");
  expect(attachedThread("nbd0")).toBeGreaterThan(0);
  expect(await server.stop()).toBe(0);
});

test("a second signal cuts the connection when writing back takes too long", async () => {
  const server = await Server.start("ramdisk", "16M", "/dev/nbd0");
  process.kill(server.pid, "SIGTERM");
  process.kill(server.pid, "SIGINT");
  // Either the first had done its work, or the second cut it short: it is over at once, and the node is free.
  expect([0, 1]).toContain(await server.ended(END_LIMIT_MS));
  await untilFree("nbd0");
});
