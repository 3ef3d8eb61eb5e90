/** Goal: a device goes on to another process while it is in use, and its users notice nothing but a pause. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { completed, devices } from "../support/ublk-nodes.ts";

const NODE = "/dev/ublkb0";
const MIB = 2 ** 20;
const FILE = "/mnt/handover.img";
afterEach(async () => {
  await endServers();
  if (existsSync("/dev/ublkc0")) await run([BINARY, "disconnect", NODE, "--force"]);
  await sh(`rm -f ${FILE}`);
});

const KINDS: readonly [string, string[], string[]][] = [
  ["a file", ["loop", FILE], ["--recover"]],
  ["a file by two queues", ["loop", FILE], ["--recover", "--queues", "2"]],
  ["a file behind a layer", ["loop", FILE, "--layer", "stats"], ["--recover"]],
  ["a RAM disk", ["ramdisk", `${16 * MIB}`, "--handover"], []],
];

/** What the layer says at each end is no complaint. */
function withoutStatistics(errors: string): string {
  return errors.replaceAll(/^stats: .*\n/gm, "");
}

/** `scripts/pause` does a hundred. */
const ROUNDS = 4;

test.each(KINDS)(
  "%s: handed over again and again under fio: no error, no mismatch",
  async (_, words, options) => {
    await sh(`truncate -s 16M ${FILE}; dmesg -C`);
    let server = await Server.start(...words, NODE, ...options);
    for (let round = 1; round <= ROUNDS; round += 1) {
      const before = completed();
      const job = ["--bs=4k", "--size=16M", "--iodepth=32", `--randseed=${round}`];
      let isOver = false;
      const load = fio(NODE, ...job, ...VERIFY).finally(() => (isOver = true));
      await until(`fio is at work in round ${round}`, () => completed() > before + 700, 60_000);
      expect(isOver).toBe(false);
      const next = await Server.start("handover", NODE, ...words);
      expect(next.path).toBe(NODE);
      expect(await server.ended()).toBe(0);
      expect(withoutStatistics(await server.errors)).toBe("");
      server = next;
      expect(await load).toMatchObject({ errors: 0, messages: "" });
    }
    expect(await sh("dmesg")).not.toMatch(/I\/O error|WARNING|BUG:/);
    expect(await server.stop()).toBe(0);
    expect(devices()).toEqual([]);
  },
  240_000,
);

describe.each(KINDS)("%s", (_, words, options) => {
  // What the next server had done when it was killed.
  test.each(["begin", "release"])("is served on when the next server is killed after %s", async (step) => {
    await sh(`truncate -s 16M ${FILE}; dmesg -C`);
    const server = await Server.start(...words, NODE, ...options);
    const bytes = pattern(MIB, 7);
    expect(writeDirect(NODE, 0, bytes)).toBe(MIB);
    const program = join(import.meta.dir, "../support/half-handed-over.ts");
    const half = Bun.spawn([process.execPath, program, NODE, step], { stdin: "ignore", stdout: "pipe" });
    const leaves = (await half.stdout.text()) === "leaves";
    expect(await half.exited).toBe(137);
    if (leaves) {
      // It has closed its device, and has nothing to go back to.
      expect(await server.ended()).toBe(0);
      await using next = await Server.start("recover", NODE, ...words);
      expect(readDirect(NODE, 0, MIB)).toEqual(bytes);
      expect(await next.stop()).toBe(0);
      return;
    }
    expect(readDirect(NODE, 0, MIB)).toEqual(bytes);
    const next = await Server.start("handover", NODE, ...words);
    expect(await server.ended()).toBe(0);
    expect(readDirect(NODE, 0, MIB)).toEqual(bytes);
    expect(await next.stop()).toBe(0);
    expect(await sh("dmesg")).not.toMatch(/I\/O error|WARNING|BUG:/);
  });
});

test("what cannot be handed over is refused, and served on", async () => {
  await sh(`truncate -s 16M ${FILE}`);
  const server = await Server.start("loop", FILE, NODE, "--recover");
  expect(await refusal("handover", NODE, "loop", "/mnt/none.img")).toContain("/mnt/none.img does not exist");
  expect(await refusal("handover", NODE, "loop", FILE, "--size", "8M")).toContain(`${NODE} has ${16 * MIB}`);
  expect(await refusal("handover", NODE, "deadbeef", "16M")).toContain("is of loop:");
  expect(await refusal("handover", NODE, "ramdisk", "16M")).toContain("no RAM disk with --handover");
  expect(await refusal("handover", "/dev/ublkb9", "loop", FILE)).toContain("no process of tsbuse serves");
  expect(writeDirect(NODE, 0, pattern(4096, 5))).toBe(4096);
  expect(await server.stop()).toBe(0);
  const other = await Server.start("loop", FILE, NODE);
  expect(await refusal("handover", NODE, "loop", FILE)).toContain(`${NODE} cannot be handed over`);
  expect(await other.stop()).toBe(0);
});
