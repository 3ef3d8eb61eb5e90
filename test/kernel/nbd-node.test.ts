/** Goal: peculiarities of the NBD driver work: two ways to attach a node, files that may be missing, a last command. */
import { afterEach, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { errno, libc } from "tsbuse";
import { BINARY, endServers, refusal, Server, untilFree } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";

afterEach(endServers);

test("a node that does not exist is made by netlink; by ioctl it is named, with the last one that does", async () => {
  expect(await refusal("ramdisk", "1M", "/dev/nbd99", "--attach", "ioctl")).toMatch(
    /^tsbuse: \/dev\/nbd99 does not exist: the last node is \/dev\/nbd15, .*\n$/,
  );
  expect(await refusal("ramdisk", "1M", "/dev/nbd9999999")).toContain("does not exist and cannot be made");
  const server = await Server.start("ramdisk", "1M", "/dev/nbd99");
  expect(await sh("blockdev --getsize64 /dev/nbd99")).toBe(String(2 ** 20));
  await server.stop();
});

test("a server that is killed with its guardian leaves a node, which the next start, or disconnect, takes away", async () => {
  for (const next of [
    ["ramdisk", "1M", "nbd", "--run", "true"],
    ["disconnect", "/dev/nbd0"],
  ]) {
    const server = await Server.start("ramdisk", "1M", "/dev/nbd0");
    await sh("pkill -KILL -f '^@tsbuse .guards a node.$'");
    await server.stop("SIGKILL");
    const left = JSON.parse(await sh(`${BINARY} list --json`));
    expect(left).toMatchObject([{ node: "/dev/nbd0", pid: null }]);
    expect(await run([BINARY, ...next])).toMatchObject({ status: 0, stderr: "" });
    await untilFree("nbd0");
  }
});

test("kill -9 while data is written back that nobody takes: it fails, and the node is free", async () => {
  writeFileSync(
    "/mnt/deaf.ts",
    "export default { size: 2 ** 20, read() {}, write: () => new Promise(() => {}) };",
  );
  const server = await Server.start("run", "/mnt/deaf.ts", "/dev/nbd0");
  await sh("dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 status=none");
  process.kill(server.pid, "SIGTERM");
  await until("it is written back", () => /[1-9]/.test(readFileSync("/sys/block/nbd0/inflight", "utf8")));
  expect(await server.stop("SIGKILL")).toBe(137);
  await untilFree("nbd0");
});

/** Starts a server without permission to make netlink sockets, as under a service manager that forbids them. */
function startWithoutSockets(...way: string[]) {
  const strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=socket:error=EPERM"];
  return run([...strace, BINARY, "ramdisk", "1M", "/dev/nbd0", ...way, "--run", "true"]);
}

test("without netlink the node is attached by ioctl, with a line why, or not at all where only netlink will do", async () => {
  const why = libc.errorText(errno.EPERM);
  // Nor can it make the socket on which others could ask it.
  const lines = `^.*attached by ioctl, and a stop signal ends it: .*${why}\n.* can ask about it: .*\n$`;
  expect(await startWithoutSockets()).toEqual({
    status: 0,
    stdout: "/dev/nbd0\n",
    stderr: expect.stringMatching(new RegExp(lines)),
  });
  expect(await startWithoutSockets("--attach", "netlink")).toEqual({
    status: 1,
    stdout: "",
    stderr: expect.stringMatching(new RegExp(`^tsbuse: netlink cannot be used: .*${why}: [^\n]+\n$`)),
  });
});

test("a missing node file is made", async () => {
  await sh("rm /dev/nbd1");
  const server = await Server.start("ramdisk", "1M", "/dev/nbd1");
  expect(await sh("blockdev --getsize64 /dev/nbd1")).toBe(String(2 ** 20));
  await server.stop();
});

test("--verbose ends with the disconnect", async () => {
  const end = await run([BINARY, "ramdisk", "1M", "/dev/nbd0", "--verbose", "--run", "true"]);
  expect(end.status).toBe(0);
  expect(end.stderr).toEndWith("tsbuse: disconnect\n");
});
