/** Goal: the kernel works as a client of the NBD server when nbd-client, not tsbuse, sets up its driver. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { attach, serve } from "tsbuse";
import { AsyncStore } from "../support/async-devices.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { Random } from "../support/random.ts";
import { sh, until } from "../support/shell.ts";

const MIB = 2 ** 20;
const NODE = "/dev/nbd0";

test("a node that nbd-client disconnects settles `done`", async () => {
  const device = new AsyncStore(4 * MIB);
  const used = await attach(device, NODE);
  await sh(`nbd-client -d ${NODE} >/dev/null`);
  await used.done;
  expect(device.closed).toBe(true);
});

test("the kernel as a client of the server, by nbd-client: fio verifies over two connections", async () => {
  const device = new AsyncStore(32 * MIB);
  const random = new Random(9);
  device.hold = () => (random.oneIn(16) ? Bun.sleep(1) : undefined);
  await using server = await serve(device, "unix:/run/async.sock");
  expect(server.path).toBe("nbd+unix:///?socket=/run/async.sock");
  await sh(`nbd-client -unix /run/async.sock ${NODE} -connections 2 >/dev/null`);
  try {
    await until("the node has its size", () => readFileSync("/sys/block/nbd0/size", "utf8").trim() !== "0");
    const report = await fio(NODE, "--bs=4k", "--iodepth=32", "--size=8M", "--randseed=9", ...VERIFY);
    expect(report.errors).toBe(0);
    await sh(`blkdiscard -o 1M -l 1M ${NODE}`);
    expect(device.bytes.subarray(MIB, 2 * MIB).every((byte) => byte === 0)).toBe(true);
  } finally {
    await sh(`nbd-client -d ${NODE} >/dev/null`);
  }
}, 300_000);
