/** Goal: a device command with a socket for its target is a server that a script can rely on, with no root. */
import { expect, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import * as nbd from "../support/golden.ts";
import { RawClient } from "../support/raw-client.ts";
import { Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const MAIN = [process.execPath, join(import.meta.dir, "../../src/main.ts")];

const start = (...words: string[]): Promise<Server> => Server.startBy(MAIN, words);

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "it prints the URI, serves, and %s ends it: flushed, status 0, no socket left",
  async (signal) => {
    using directory = new TemporaryDirectory();
    const [image, path] = [directory.join("disk.img"), directory.join("disk.sock")];
    const words = ["loop", image, `unix:${path}`, "--create", "4M", "--export-name", "a disk"];
    await using command = await start(...words, "--description", "of mine");
    expect(command.path).toBe(`nbd+unix:///a%20disk?socket=${path}`);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const info = JSON.parse(await sh(`nbdinfo --json '${command.path}'`));
    expect(info.exports[0]).toMatchObject({ "export-name": "a disk", description: "of mine" });
    await sh(`qemu-io -f raw -c 'write -P 9 1M 1M' '${command.path}'`);
    // A client that stays connected does not hold it up.
    using idle = await RawClient.transmitting(command.path);
    expect(await command.stop(signal)).toBe(0);
    expect(await command.errors).toBe("");
    expect(existsSync(path)).toBe(false);
    await idle.closed();
    await sh(`qemu-io -r -f raw -c 'read -P 9 1M 1M' ${image}`);
  },
);

test("TCP: the port that was free is in the URI, and only this machine gets in", async () => {
  await using command = await start("ramdisk", "1M", "tcp:0");
  expect(command.path).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/$/);
  expect(await sh(`nbdinfo --size '${command.path}'`)).toBe(String(2 ** 20));
  const port = Number(new URL(command.path).port).toString(16).toUpperCase().padStart(4, "0");
  const listening = await sh(`awk '$4 == "0A" {print $2}' /proc/net/tcp | grep ':${port}$'`);
  expect(listening).toBe(`0100007F:${port}`);
});

test("--run gets the URI, and its end is the server's", async () => {
  using directory = new TemporaryDirectory();
  const script = 'qemu-img info "$TSBUSE_DEVICE" | grep "^virtual size"; exit 7';
  const end = await run([...MAIN, "deadbeef", "1M", `unix:${directory.join("s")}`, "--run", script]);
  expect(end.status).toBe(7);
  expect(end.stdout).toBe(
    `nbd+unix:///?socket=${directory.join("s")}\nvirtual size: 1 MiB (1048576 bytes)\n`,
  );
  expect(existsSync(directory.join("s"))).toBe(false);
});

test("--read-only and --block-size are the export's", async () => {
  await using command = await start("ramdisk", "1M", "tcp:0", "--read-only", "--block-size", "4096");
  const info = JSON.parse(await sh(`nbdinfo --json '${command.path}'`));
  expect(info.exports[0]).toMatchObject({ is_read_only: true, block_size_minimum: 4096 });
});

test("--verbose prints a line for each request; a client that is cut off is one line", async () => {
  await using command = await start("ramdisk", "1M", "tcp:0", "--verbose");
  await sh(`qemu-io -f raw -c 'write 4k 8k' '${command.path}' && nbdinfo --map '${command.path}'`);
  using stranger = await RawClient.connect(command.path);
  stranger.send(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  await stranger.closed();
  expect(await command.stop("SIGTERM")).toBe(0);
  const lines = (await command.errors).trimEnd().split("\n");
  expect(lines).toContain("tsbuse: write offset 4096 length 8192");
  expect(lines.filter((line) => line.startsWith("tsbuse: block status offset 0"))).not.toHaveLength(0);
  expect(lines.filter((line) => line.includes("was cut off"))).toHaveLength(1);
});

test.each([[], ["--busy-poll", "1000"]])(
  "a client that never rests holds up nobody, and no signal: %p",
  async (...options: string[]) => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    await using command = await start("ramdisk", "64M", `unix:${path}`, ...options);
    const job = "--rw=randrw --bs=4k --iodepth=32 --size=64m --time_based --runtime=60 --output=/dev/null";
    const words = `fio --name=busy --ioengine=nbd --uri=${command.path} ${job}`.split(" ");
    const cwd = directory.path;
    const busy = Bun.spawn(words, { cwd, stdin: "ignore", stdout: "ignore", stderr: "ignore" });
    try {
      using client = await RawClient.transmitting(command.path);
      for (let cookie = 1n; cookie <= 100n; cookie += 1n) {
        client.send(nbd.encode({ command: nbd.READ, cookie, offset: 0, length: 512 }));
        await client.bytes(Number(cookie) * 528);
      }
      expect(busy.exitCode).toBeNull();
      expect(await command.stop("SIGTERM")).toBe(0);
      expect(await command.errors).toBe("");
      await client.closed();
      expect(existsSync(path)).toBe(false);
    } finally {
      busy.kill("SIGKILL");
      await busy.exited;
    }
  },
  30_000,
);

test.each(["0", "9", "50000"])("--busy-poll %s goes with every option and every device", async (time) => {
  const options = ["--request-timeout", "9", "--layer", "delay:read=1", "--busy-poll", time];
  await using command = await start("ramdisk", "1M", "tcp:0", ...options);
  expect(await sh(`nbdinfo --size '${command.path}'`)).toBe(String(2 ** 20));
  expect(await command.stop("SIGTERM")).toBe(0);
  expect(await command.errors).toBe("");
});

test("a second server for the same socket leaves the first alone", async () => {
  using directory = new TemporaryDirectory();
  const target = `unix:${directory.join("s")}`;
  await using first = await start("ramdisk", "1M", target);
  const second = await run([...MAIN, "loop", directory.join("new.img"), target, "--create", "1M"]);
  expect(second.status).toBe(1);
  expect(second.stderr).toBe(
    `tsbuse: ${directory.join("s")} is served by another process: end it, or choose another path\n`,
  );
  expect(existsSync(directory.join("new.img"))).toBe(false);
  expect(await sh(`nbdinfo --size '${first.path}'`)).toBe(String(2 ** 20));
});
