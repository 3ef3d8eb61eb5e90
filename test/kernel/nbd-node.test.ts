/** Goal: what is the NBD driver's alone: a fixed number of nodes, whose files may be missing, and its last command. */
import { afterEach, expect, test } from "bun:test";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";

afterEach(endServers);

test("a node that does not exist is named, with the last one that does", async () => {
  expect(await refusal("ramdisk", "1M", "/dev/nbd99")).toMatch(
    /^tsbuse: \/dev\/nbd99 does not exist: the last node is \/dev\/nbd15, .*\n$/,
  );
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
