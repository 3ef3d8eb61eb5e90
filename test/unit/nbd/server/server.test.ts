/** The server: many clients on one device, and how it treats those that misbehave, with each way of waiting. */
import { describe, expect, spyOn, test } from "bun:test";
import { readdirSync } from "node:fs";
import { AsyncStore } from "../../../support/async-devices.ts";
import { clientFlags, FIXED, hello, NO_ZEROES, OPT, option } from "../../../support/golden-handshake.ts";
import * as nbd from "../../../support/golden.ts";
import { memoryUse } from "../../../support/memory-use.ts";
import { pattern } from "../../../support/random.ts";
import { UserError } from "../../../../src/errors.ts";
import { Ring } from "../../../../src/libc/uring.ts";
import { RawClient } from "../../../support/raw-client.ts";
import type { ServerOptions } from "../../../../src/nbd/server/limits.ts";
import { KINDS_SERVED, RunningServer, WAYS } from "../../../support/running-server.ts";
import { Shadow } from "../../../support/shadow.ts";
import { until } from "../../../support/shell.ts";

/** <errno.h> */
const EAGAIN = 11;
const SIZE = 32 * 2 ** 20;
const MIB = 2 ** 20;

/** Expects that the client can write, and reads what it wrote. */
async function works(client: RawClient, offset = 0): Promise<void> {
  const payload = pattern(4096, offset + 7);
  const requests: readonly nbd.Request[] = [
    { command: nbd.WRITE, cookie: 1n, offset, payload },
    { command: nbd.READ, cookie: 2n, offset, length: payload.length },
  ];
  client.send(nbd.encodeAll(requests));
  const replies = nbd.decodeReplies(await client.take(32 + payload.length), requests);
  expect(replies.map((reply) => reply.error)).toEqual([0, 0]);
  expect(replies[1]?.payload).toEqual(payload);
}

/** A client in the transmission phase, though clients whose handshake takes long are cut off. */
async function soonTransmitting(uri: string): Promise<RawClient> {
  for (;;) {
    const client = await RawClient.transmitting(uri);
    if (!client.isClosed) return client;
  }
}

/** Clients that connect, send part of a message, and leave. */
async function connects(uri: string, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 50) {
    const clients = await Promise.all(Array.from({ length: 50 }, () => RawClient.connect(uri)));
    for (const client of clients) client.send(clientFlags(FIXED).slice(0, 2));
    for (const client of clients) client[Symbol.dispose]();
  }
}

describe.each(KINDS_SERVED)("%s:", (_name, { way, make }) => {
  const start = (options: ServerOptions = {}): Promise<RunningServer> =>
    RunningServer.start(way, make(SIZE), options);

  describe("clients that misbehave are cut off with one line, and others do not notice", () => {
    test.each([
      ["garbage", new TextEncoder().encode("SSH-2.0-OpenSSH_9.9\r\n")],
      ["no request", nbd.concatenate([hello(), new Uint8Array(28).fill(0x55)])],
    ])("%s", async (_, bytes) => {
      await using running = await start();
      using good = await RawClient.transmitting(running.uri);
      using bad = await RawClient.connect(running.uri);
      bad.send(bytes);
      await bad.closed();
      await works(good);
      expect(running.lines).toHaveLength(1);
      expect(running.lines[0]).toMatch(/^client 2 \(.*127\.0\.0\.1\) was cut off: /);
    });

    test("silence in the handshake, and not after it", async () => {
      await using running = await start({ handshakeMs: 200, stallMs: 20 });
      using good = await soonTransmitting(running.uri);
      const before = running.lines.length;
      using silent = await RawClient.connect(running.uri);
      using slow = await RawClient.connect(running.uri);
      slow.send(clientFlags(FIXED).slice(0, 3));
      await silent.closed();
      await slow.closed();
      await works(good);
      const cut = running.lines.slice(before);
      expect(cut).toHaveLength(2);
      expect(cut[0]).toContain("its handshake took too long");
    });
  });

  test("no more clients than allowed; one that leaves makes room", async () => {
    await using running = await start({ maxConnections: 2 });
    const first = await RawClient.transmitting(running.uri);
    using second = await RawClient.transmitting(running.uri);
    using refused = await RawClient.connect(running.uri);
    using refusedToo = await RawClient.connect(running.uri);
    await refused.closed();
    await refusedToo.closed();
    expect(running.lines).toEqual(["there are 2 clients: no more are taken for now"]);
    first[Symbol.dispose]();
    await works(second);
    await until("there is room", async () => {
      using next = await RawClient.connect(running.uri);
      return (await next.bytes(18)).length === 18;
    });
  });
});

describe.each(WAYS)("%s:", (way) => {
  test("a client that does not take its replies is cut off, by the time that they should take", async () => {
    await using running = await RunningServer.start(way, new Shadow(SIZE), { stallMs: 50 });
    using deaf = await RawClient.transmitting(running.uri);
    deaf.pause();
    // The socket's buffers take these; of what comes then few bytes are sent at once, and 64 KiB have a second.
    for (const length of [MIB, MIB / 2]) deaf.send(nbd.encodeAll(nbd.readsOf(1, length)));
    await until("it is cut off", () => {
      deaf.send(nbd.encodeAll(nbd.readsOf(1, 4096)));
      return running.lines.length > 0;
    });
    expect(running.lines).toEqual([expect.stringContaining("stopped in the middle of a request or a reply")]);
  }, 20_000);

  const read: nbd.Request = { command: nbd.READ, cookie: 1n, offset: 0, length: SIZE };

  test("at the end requests in flight are answered, then the device is flushed", async () => {
    const device = new AsyncStore(SIZE);
    const gate = Promise.withResolvers<void>();
    const calls: number[] = [];
    device.hold = (_, length) => {
      calls.push(length);
      return length === 512 ? gate.promise : undefined;
    };
    const running = await RunningServer.start(way, device);
    using client = await RawClient.transmitting(running.uri);
    const request = { ...read, length: 512 };
    client.send(nbd.encode(request));
    await until("the device has it", () => device.inFlight === 1);
    running.server.detach();
    using late = await RawClient.connect(running.uri).catch(() => undefined);
    expect(late === undefined || (await late.bytes(1)).length === 0).toBe(true);
    gate.resolve();
    expect(nbd.decodeReplies(await client.bytes(528), [request])).toHaveLength(1);
    await running.ended;
    await client.closed();
    expect(calls).toEqual([512, 0]);
  });

  test("at the end a client gets the replies that it is owed, and the device is flushed", async () => {
    const device = new Shadow(SIZE);
    const running = await RunningServer.start(way, device);
    using client = await RawClient.transmitting(running.uri);
    client.pause();
    client.send(nbd.encode(read));
    await until("the device has answered", () => running.server.statistics.requests === 1);
    running.server.detach();
    client.resume();
    expect(await client.size(SIZE + 16)).toBe(SIZE + 16);
    await running.ended;
    await client.closed();
    expect(device.calls).toEqual([`read 0+${SIZE}`, "flush"]);
  });

  test.each([
    ["the device", 512, false],
    ["a client that takes nothing", SIZE, true],
  ])("cut() does not wait for %s", async (_, length, answers) => {
    const device = new AsyncStore(SIZE);
    if (!answers) device.hold = () => Promise.withResolvers<void>().promise;
    const running = await RunningServer.start(way, device);
    using client = await RawClient.transmitting(running.uri);
    client.pause();
    client.send(nbd.encode({ ...read, length }));
    await until("the device has it", () =>
      answers ? running.server.statistics.requests === 1 : device.inFlight === 1,
    );
    const reason = new UserError("it is enough");
    running.server.cut(reason);
    await expect(running.ended).rejects.toBe(reason);
    client.resume();
    await client.closed();
  });

  test("requests that come with the end of the handshake are answered, and the last ones before a hang-up", async () => {
    await using running = await RunningServer.start(way, new Shadow(SIZE));
    using client = await RawClient.connect(running.uri);
    const short = { ...read, length: 512 };
    const handshake = [clientFlags(FIXED | NO_ZEROES), option(OPT.EXPORT_NAME)];
    client.send(
      nbd.concatenate([...handshake, nbd.encode(short), nbd.encode({ command: nbd.DISC, cookie: 2n })]),
    );
    await client.closed();
    expect(nbd.decodeReplies(client.received.slice(18 + 10), [short])).toHaveLength(1);
  });

  test("a device that closes its server in the middle of a request harms nobody", async () => {
    const device = new Shadow(SIZE);
    const running = await RunningServer.start(way, device);
    const plain = device.read.bind(device);
    device.read = (target, offset) => {
      if (offset === 512) running.server.detach();
      plain(target, offset);
    };
    using client = await RawClient.transmitting(running.uri);
    client.send(nbd.encodeAll(nbd.readsOf(100, 512)));
    await running.ended;
    await client.closed();
    // Requests that began are answered, and no reply is cut off.
    expect(client.received.length).toBeGreaterThanOrEqual(2 * (16 + 512));
    expect(client.received.length % (16 + 512)).toBe(0);
  });

  test("a kernel that is short of memory for a moment costs no reply", async () => {
    await using running = await RunningServer.start(way, new Shadow(SIZE));
    using client = await RawClient.transmitting(running.uri);
    await works(client);
    const enter = spyOn(Ring.prototype, "enter").mockReturnValueOnce(-EAGAIN);
    await works(client, 4096);
    await works(client, 8192);
    enter.mockRestore();
  });

  test("ten thousand connects leave nothing behind", async () => {
    await using running = await RunningServer.start(way, new Shadow(SIZE));
    using good = await RawClient.transmitting(running.uri);
    await connects(running.uri, 1000);
    await works(good);
    Bun.gc(true);
    const before = memoryUse().resident;
    const files = readdirSync("/proc/self/fd").length;
    await connects(running.uri, 9000);
    await works(good);
    await until("all sockets are closed", () => readdirSync("/proc/self/fd").length <= files + 4);
    Bun.gc(true);
    expect(memoryUse().resident - before).toBeLessThan(48 * MIB);
  }, 60_000);
});
