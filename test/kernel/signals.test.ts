/** Goal: every way to end a server leaves the data on the device and the node free. */
import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { errno, libc } from "tsbuse";
import { writeFiles } from "../support/files.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { BINARY, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { ALL_TRANSPORTS, describeTransports } from "../support/transports.ts";

/** A module whose device never answers a write. */
const SILENT = `export default {
  size: 2 ** 20, read: (target) => void target.fill(0), write: () => new Promise(() => {}),
};`;

/** The time limit for the end after a signal, in milliseconds. */
const END_LIMIT_MS = 15_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** How long a server is stopped, in seconds. */
const HELD_SECONDS = 5;

/** Freezes by a control group, as "docker pause" does. */
function freeze(pid: number): string {
  const group = "/sys/fs/cgroup/frozen";
  return `mkdir ${group}; echo ${pid} > ${group}/cgroup.procs; echo 1 > ${group}/cgroup.freeze
    sleep ${HELD_SECONDS}; echo 0 > ${group}/cgroup.freeze; echo ${pid} > /sys/fs/cgroup/cgroup.procs; rmdir ${group}`;
}

/** Ways to stop a process for a while. */
const HOLDS: readonly (readonly [string, (pid: number) => string])[] = [
  ["stopped", (pid) => `kill -STOP ${pid}; sleep ${HELD_SECONDS}; kill -CONT ${pid}`],
  ["frozen", (pid) => freeze(pid)],
  ["traced", (pid) => `timeout ${HELD_SECONDS} strace -f -p ${pid} -o /dev/null 2>/dev/null || [ $? = 124 ]`],
];

describeTransports((transport, disk) => {
  const { path: node } = disk;

  /** The entry of the node in `tsbuse list`. */
  async function listed(): Promise<unknown> {
    const all: { readonly node: string }[] = JSON.parse((await run([BINARY, "list", "--json"])).stdout);
    return all.find((one) => one.node === node);
  }

  for (const signal of SIGNALS) {
    test(`${signal} when idle: exit 0, and the node attaches again at once`, async () => {
      const server = await Server.start("ramdisk", "16M", node);
      expect(await server.stop(signal, END_LIMIT_MS)).toBe(0);
      expect(await server.errors).toBe("");
      const next = await Server.start("ramdisk", "16M", node);
      expect(await next.stop()).toBe(0);
    });
  }

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`${signal} under load: exit 0, and the node attaches again at once`, async () => {
      const server = await Server.start("ramdisk", "64M", node);
      const job = ["--rw=randrw", "--bs=4k", "--iodepth=32", "--time_based", "--runtime=60", "--size=64M"];
      const load = fio(node, ...job);
      await until("fio is at work", () => Number(disk.attribute("stat").split(/\s+/)[0]) > 500, 30_000);
      expect(await server.stop(signal, END_LIMIT_MS)).toBe(0);
      expect((await load).errors).not.toBe(0);
      await Server.start("ramdisk", "16M", node);
    }, 60_000);
  }

  test("data that was written but not synced is on the device after SIGTERM", async () => {
    const server = await Server.start("loop", "/mnt/late.img", node, "--create", "16M");
    // Keep it open: closing the last descriptor would write back the data by itself.
    const fd = openSync(node, "r+");
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
    const server = await Server.start("loop", "/mnt/small/full.img", node, "--create", "4M");
    const fd = openSync(node, "r+");
    const bytes = Buffer.alloc(2 * 2 ** 20, "more than fits. ");
    writeSync(fd, bytes, 0, bytes.length, 0);
    expect(await server.stop("SIGTERM")).toBe(1);
    closeSync(fd);
    // Whatever the driver's error, the kernel reports only EIO for the page cache.
    const reason = libc.errorText(errno.EIO);
    expect(await server.errors).toContain(`${node}: not all data could be written back: ${reason}`);
    await sh("umount /mnt/small");
  });

  test("files written to a mounted file system are on the device after SIGTERM", async () => {
    const server = await Server.start("loop", "/mnt/mounted.img", node, "--create", "64M");
    await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/fs; mount ${node} /mnt/fs; echo kept > /mnt/fs/file`);
    expect(await server.stop("SIGTERM", END_LIMIT_MS)).toBe(0);
    expect(await server.errors).toContain(`${node} is mounted at /mnt/fs`);
    await sh("umount /mnt/fs");
    await disk.untilFree();
    await Server.start("loop", "/mnt/mounted.img", node);
    await sh(`mount ${node} /mnt/fs`);
    expect(await sh("cat /mnt/fs/file")).toBe("kept");
    await sh("umount /mnt/fs");
  });

  test("kill -9, then attach again", async () => {
    for (let i = 0; i < 3; i += 1) {
      const server = await Server.start("ramdisk", "16M", node);
      await sh(`dd if=/dev/zero of=${node} bs=1M count=4 oflag=direct status=none`);
      expect(await server.stop("SIGKILL")).toBe(137);
      await disk.untilFree();
    }
  });

  test("kill -9 with a request in flight: it fails at once, and the node is free", async () => {
    const module = writeFiles("/mnt/silent", { "disk.ts": SILENT });
    const server = await Server.start("run", module, node);
    const write = run(["dd", "if=/dev/zero", `of=${node}`, "bs=4k", "count=1", "oflag=direct"]);
    await until("the request is in flight", () => /[1-9]/.test(disk.attribute("inflight")));
    expect(await server.stop("SIGKILL")).toBe(137);
    expect((await write).status).toBe(1);
    await disk.untilFree();
    expect(disk.size).toBe(0);
  });

  test("disconnect by another process: the server flushes and exits 0", async () => {
    const server = await Server.start("loop", "/mnt/disconnect.img", node, "--create", "4M");
    await sh(`printf kept | dd of=${node} status=none`);
    expect(await run([BINARY, "disconnect", node])).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(await server.ended()).toBe(0);
    expect(await sh("head -c 4 /mnt/disconnect.img")).toBe("kept");
    expect(await refusal("disconnect", node)).toMatch(new RegExp(`^tsbuse: ${node} is not attached: .*\n$`));
  });

  test("disconnect refuses a mounted node, frees one left behind by a killed server", async () => {
    const server = await Server.start("ramdisk", "32M", node);
    await sh(`mkfs.ext4 -q ${node}; mkdir -p /mnt/fs; mount ${node} /mnt/fs`);
    expect(await refusal("disconnect", node)).toMatch(
      new RegExp(`^tsbuse: ${node} is mounted at /mnt/fs: .*\n$`),
    );
    await server.stop("SIGKILL");
    await sh("umount -l /mnt/fs");
    if ((await listed()) !== undefined) expect((await run([BINARY, "disconnect", node])).status).toBe(0);
    await disk.untilFree();
    await Server.start("ramdisk", "1M", node);
  });

  test("list names the device, its server, size and flags", async () => {
    const server = await Server.start("ramdisk", "16M", node);
    expect(await listed()).toMatchObject({
      node,
      size: 16 * 2 ** 20,
      pid: server.pid,
      trim: true,
    });
    const table = (await run([BINARY, "list"])).stdout;
    expect(table).toContain(node);
    expect(table).toContain("16MiB");
    expect(table).toContain(String(server.pid));
  });

  test("terminal stop signals are ignored: the device goes on", async () => {
    const server = await Server.start("ramdisk", "16M", node);
    for (const signal of ["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const) process.kill(server.pid, signal);
    await sh(`dd if=/dev/zero of=${node} bs=4k count=16 oflag=direct status=none`);
    expect(disk.isAttached).toBe(true);
    expect(await server.stop()).toBe(0);
  });

  test(`a server that was stopped and continued ${transport.outlivesStop ? "goes on" : "is cut off"}`, async () => {
    const server = await Server.start("ramdisk", "16M", node);
    process.kill(server.pid, "SIGSTOP");
    await until("it has stopped", () => readFileSync(`/proc/${server.pid}/stat`, "utf8").includes(") T "));
    const write = run(["dd", "if=/dev/urandom", `of=${node}`, "bs=4k", "count=16", "oflag=direct"]);
    process.kill(server.pid, "SIGCONT");
    if (transport.outlivesStop) {
      expect((await write).status).toBe(0);
      expect(await server.stop()).toBe(0);
      expect(await server.errors).toBe("");
    } else {
      expect((await write).status).toBe(1);
      expect(await server.ended()).toBe(1);
      expect(await server.errors).toContain(`${node} was cut off`);
    }
  });

  // With ioctl the kernel ends the device in each case.
  for (const [held, hold] of transport.outlivesStop ? HOLDS : [])
    test(`a server that is ${held} for a while under a load that verifies: no error`, async () => {
      const server = await Server.start("ramdisk", "32M", node);
      const job = ["--bs=4k", "--size=16M", "--iodepth=16", "--randseed=5"];
      const load = fio(node, ...job, ...VERIFY);
      await until("fio is at work", () => Number(disk.attribute("stat").split(/\s+/)[4]) > 200, 30_000);
      await sh(hold(server.pid));
      expect(await load).toMatchObject({ errors: 0, messages: "" });
      expect(await server.stop()).toBe(0);
      expect(await server.errors).toBe("");
    }, 300_000);

  test("a second signal cuts the connection when writing back takes too long", async () => {
    const server = await Server.start("ramdisk", "16M", node);
    process.kill(server.pid, "SIGTERM");
    process.kill(server.pid, "SIGINT");
    // Either the first signal was enough, or the second cut it short: the server ends at once, and the node is free.
    expect([0, 1]).toContain(await server.ended(END_LIMIT_MS));
    await disk.untilFree();
  });
}, ALL_TRANSPORTS);
