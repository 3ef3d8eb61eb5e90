/** Goal: whatever one client and its requests do, the others do not notice. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { AsyncStore } from "../../support/async-devices.ts";
import { contextData, hello, OPT, option } from "../../support/golden-handshake.ts";
import * as nbd from "../../support/golden.ts";
import { HeldDevice } from "../../support/held-device.ts";
import { memoryUse } from "../../support/memory-use.ts";
import { RawClient } from "../../support/raw-client.ts";
import { RunningServer, WAYS } from "../../support/running-server.ts";
import { Shadow } from "../../support/shadow.ts";
import { until } from "../../support/shell.ts";

const MIB = 2 ** 20;
const SIZE = 32 * MIB;
const LIMIT_MS = 30_000;

function read(length: number, offset = 0, cookie = 1n): nbd.Request {
  return { command: nbd.READ, cookie, offset, length };
}

/** Sends the request and waits until its reply is there. */
async function ask(client: RawClient, request: nbd.Request): Promise<nbd.Reply> {
  client.send(nbd.encode(request));
  const [reply] = nbd.decodeReplies(await client.take(nbd.REPLY_BYTES + (request.length ?? 0)), [request]);
  if (reply === undefined) throw new Error("the server has closed the connection");
  return reply;
}

describe.each(WAYS)("%s:", (way) => {
  test(
    "requests for the same bytes, thousands at a device that hangs: others do not notice",
    async () => {
      const device = new AsyncStore(SIZE);
      const gate = Promise.withResolvers<void>();
      device.hold = (offset) => (offset < MIB ? gate.promise : undefined);
      await using running = await RunningServer.start(way, device);
      const clients = await Promise.all(
        Array.from({ length: 60 }, () => RawClient.transmitting(running.uri)),
      );
      const before = memoryUse().resident;
      const writes = Array.from({ length: 256 }, (_, index): nbd.Request => {
        return { command: nbd.WRITE, cookie: BigInt(index), offset: 0, payload: new Uint8Array(512) };
      });
      for (const client of clients) client.send(nbd.encodeAll(writes));
      using other = await RawClient.transmitting(running.uri);
      expect((await ask(other, read(4096, 2 * MIB))).error).toBe(0);
      // 128 of each client are held, with 4 KiB of payload and less than 4 KiB of all else for each.
      expect(memoryUse().resident - before).toBeLessThan(60 * 128 * 8192 + 32 * MIB);
      gate.resolve();
      for (const client of clients) {
        expect(await client.size(256 * nbd.REPLY_BYTES)).toBe(256 * nbd.REPLY_BYTES);
        client[Symbol.dispose]();
      }
    },
    LIMIT_MS,
  );

  test(
    "clients that let long replies trickle: short reads go on, and long ones get memory in the end",
    async () => {
      await using running = await RunningServer.start(way, new Shadow(SIZE), { stallMs: 100 });
      const greedy = await Promise.all(Array.from({ length: 64 }, () => RawClient.transmitting(running.uri)));
      for (const client of greedy) {
        client.pause();
        client.send(nbd.encodeAll([read(4 * MIB), read(4 * MIB, 0, 2n)]));
      }
      await until("they have all the memory", () => running.server.requests === 64);
      // A little now and then is not enough: they are cut off.
      const trickle = setInterval(() => {
        for (const client of greedy) {
          client.resume();
          client.pause();
        }
      }, 20);
      try {
        using other = await RawClient.transmitting(running.uri);
        for (let round = 0; round < 20; round += 1) expect((await ask(other, read(4096))).error).toBe(0);
        other.send(nbd.encode(read(8 * MIB)));
        await until("the long read is answered", () => running.server.requests >= 64 + 20 + 1, LIMIT_MS);
      } finally {
        clearInterval(trickle);
        for (const client of greedy) client[Symbol.dispose]();
      }
    },
    LIMIT_MS + 10_000,
  );

  test("a client whose request takes the device long is not cut off for it", async () => {
    const device = new HeldDevice(MIB, MIB / 2);
    await using running = await RunningServer.start(way, device, { stallMs: 20 });
    using slow = await RawClient.transmitting(running.uri);
    using half = await RawClient.transmitting(running.uri);
    slow.send(nbd.encode(read(4096)));
    await until("the device has it", () => device.names.length === 1);
    // Another client is cut off meanwhile: there was enough time.
    half.send(nbd.encode(read(512)).slice(0, 10));
    await half.closed();
    device.settleDown();
    expect(await slow.bytes(16 + 4096)).toHaveLength(16 + 4096);
    expect(running.lines).toEqual([expect.stringContaining("stopped in the middle of a request or a reply")]);
  });

  test(
    "many requests that take the processor: another client is served between them",
    async () => {
      let calls = 0;
      const busy: BlockDevice = {
        size: MIB,
        read: () => undefined,
        extents(_, length) {
          calls += 1;
          const end = performance.now() + 1;
          while (performance.now() < end);
          return [{ length, hole: false, zero: false }];
        },
      };
      await using running = await RunningServer.start(way, busy);
      using other = await RawClient.transmitting(running.uri);
      using many = await RawClient.connect(running.uri);
      const status = Array.from({ length: 1500 }, (_, index): nbd.Request => {
        return { command: 7, cookie: BigInt(index), offset: 0, length: 512 };
      });
      const context = option(OPT.SET_META_CONTEXT, contextData("", "base:allocation"));
      many.send(nbd.concatenate([hello(option(OPT.STRUCTURED_REPLY), context), nbd.encodeAll(status)]));
      await until("they have begun", () => calls > 0);
      const before = calls;
      expect((await ask(other, read(512))).error).toBe(0);
      // Some turns of 50 ms, and no more than that: of 1,500.
      expect(calls - before).toBeLessThan(500);
      expect(calls).toBeLessThan(1500);
    },
    LIMIT_MS,
  );

  test("when there is no place, the one that has been idle for longest gives way; one at the device does not", async () => {
    const device = new HeldDevice(MIB, MIB / 2);
    await using running = await RunningServer.start(way, device, { maxConnections: 3, idleMs: 100 });
    using waiting = await RawClient.transmitting(running.uri);
    waiting.send(nbd.encode(read(512)));
    await until("the device has it", () => device.names.length === 1);
    using idlest = await RawClient.transmitting(running.uri);
    await ask(idlest, read(512, MIB / 2));
    using active = await RawClient.transmitting(running.uri);
    await until("there is a place", async () => {
      await ask(active, read(512, MIB / 2));
      using next = await RawClient.connect(running.uri);
      return (await next.bytes(18)).length === 18;
    });
    expect([waiting.isClosed, idlest.isClosed, active.isClosed]).toEqual([false, true, false]);
    expect(running.lines.at(-1)).toMatch(
      /^client 2 .* has asked for nothing for .* s, and its place was needed$/,
    );
    device.settleDown();
    expect(await waiting.bytes(16 + 512)).toHaveLength(16 + 512);
  });

  test("a request that hangs is answered with EIO, and holds up no others of its client", async () => {
    const device = new HeldDevice(2 * MIB, MIB);
    await using running = await RunningServer.start(way, device, { requestTimeoutMs: 50 });
    using client = await RawClient.transmitting(running.uri);
    client.send(nbd.encode(read(4096, 0, 7n)));
    await until("the device has it", () => device.names.length === 1);
    await until("it is given up", () => running.lines.length === 1);
    const [late] = nbd.decodeReplies(await client.bytes(16), [read(4096, 0, 7n)]);
    expect([late?.cookie, late?.error]).toEqual([7n, nbd.EIO]);
    // More than the total memory that one client can use.
    for (let round = 0; round < 66; round += 1) client.send(nbd.encode(read(MIB, MIB)));
    const total = 16 + 66 * (16 + MIB);
    expect(await client.size(total)).toBe(total);
    device.settleDown();
  });
});
