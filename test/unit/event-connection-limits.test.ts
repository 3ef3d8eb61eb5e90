/** The event pump's bounds, in number and in bytes, on both sides; and how it ends. */
import { describe, expect, test } from "bun:test";
import { AsyncStore } from "../support/async-devices.ts";
import { EventPeer } from "../support/event-peer.ts";
import * as nbd from "../support/golden.ts";
import { pattern } from "../support/random.ts";
import { Shadow } from "../support/shadow.ts";
import { until } from "../support/shell.ts";

const SIZE = 64 * 2 ** 20;
const MIB = 2 ** 20;

/** Reads one after another, with cookies from `first` on. */
function reads(count: number, length: number, first = 0): nbd.Request[] {
  return Array.from({ length: count }, (_, index) => ({
    command: nbd.READ,
    cookie: BigInt(first + index),
    offset: (index * length) % SIZE,
    length,
  }));
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** A device that does nothing until it is let. */
function gated(size = SIZE): { readonly device: AsyncStore; readonly open: () => void } {
  const device = new AsyncStore(size);
  const gate = Promise.withResolvers<void>();
  device.hold = () => gate.promise;
  return { device, open: gate.resolve };
}

describe("requests in", () => {
  test("no more than the queue depth reach the device; the rest wait, unread", async () => {
    const { device, open } = gated();
    const peer = new EventPeer(device, { queueDepth: 16 });
    const requests = reads(100, 512);
    for (const request of requests) peer.send(nbd.encode(request));
    await settle();
    expect(device.inFlight).toBe(16);
    expect(peer.paused).toBe(true);
    open();
    expect(await peer.replies(requests)).toHaveLength(100);
    expect(device.inFlightMax).toBe(16);
    expect(peer.paused).toBe(false);
  });

  test("payloads in memory are bounded: 64 MiB for one connection, whatever the depth", async () => {
    const { device, open } = gated();
    const peer = new EventPeer(device, { poolBytes: 1024 * MIB });
    const requests = reads(100, MIB);
    peer.sendAll(requests);
    await settle();
    expect(device.inFlight).toBe(64);
    expect(peer.service.pool.usedBytes).toBe(64 * MIB);
    open();
    await peer.replies(requests);
    expect(peer.service.pool.usedBytes).toBe(0);
  });

  test("one connection that has taken all the memory leaves enough for small requests of another", async () => {
    const { device, open } = gated();
    const greedy = new EventPeer(device, { poolBytes: 32 * MIB });
    const other = new EventPeer(device, { service: greedy.service });
    greedy.sendAll(reads(64, MIB));
    other.sendAll(reads(8, 4096));
    await settle();
    expect(device.inFlight).toBe(32 + 8);
    // More than its share has to wait, and is woken.
    const large = { command: nbd.READ, cookie: 100n, offset: 0, length: 8 * MIB };
    other.sendAll([large]);
    await settle();
    expect(other.paused).toBe(true);
    open();
    await greedy.replies(reads(64, MIB));
    await other.replies([...reads(8, 4096), large]);
    expect(greedy.service.pool.usedBytes).toBe(0);
  });

  test("the longest request is served, and its buffer used again", async () => {
    const peer = new EventPeer(new Shadow(SIZE), { poolBytes: 32 * MIB });
    const payload = pattern(MIB);
    const long = new Uint8Array(32 * MIB);
    for (let at = 0; at < long.length; at += MIB) long.set(payload, at);
    const replies = await peer.exchange(
      { command: nbd.WRITE, cookie: 1n, offset: 0, payload: long },
      { command: nbd.READ, cookie: 2n, offset: 0, length: long.length },
    );
    expect(replies[1]?.payload).toEqual(long);
    expect(peer.service.pool.usedBytes).toBe(0);
  });
});

describe("replies out", () => {
  test("a peer that takes a few bytes at a time gets them all, in order", async () => {
    const device = new Shadow(SIZE);
    device.bytes.set(pattern(128 * 1024));
    const peer = new EventPeer(device);
    peer.room = 0;
    const requests = [...reads(4, 1024), ...reads(1, 64 * 1024, 4)];
    peer.sendAll(requests);
    await settle();
    const total = 5 * 16 + 4 * 1024 + 64 * 1024;
    for (let taken = 0; taken < total; taken += 97) {
      peer.take(97);
      await settle();
    }
    const replies = await peer.replies(requests);
    for (const [index, { offset = 0, length = 0 }] of requests.entries()) {
      const start = Number(offset);
      expect(replies[index]?.payload).toEqual(device.bytes.slice(start, start + length));
    }
    expect(peer.service.pool.usedBytes).toBe(0);
  });

  test("a peer that takes nothing is not read from any more, and costs no more than its bounds", async () => {
    const device = new Shadow(SIZE);
    const peer = new EventPeer(device);
    peer.room = 0;
    const requests = reads(2000, 64 * 1024);
    for (const request of requests) peer.send(nbd.encode(request));
    await settle();
    expect(peer.paused).toBe(true);
    expect(peer.connection.waitsForPeer).toBe(true);
    expect(device.calls.length).toBeLessThan(200);
    expect(peer.service.pool.usedBytes).toBeLessThanOrEqual(64 * MIB);
    while (device.calls.length < 2000 || peer.paused) {
      peer.take(8 * MIB);
      await settle();
    }
    peer.take(Number.POSITIVE_INFINITY);
    expect(await peer.replies(requests)).toHaveLength(2000);
  });
});

describe("the end", () => {
  const write: nbd.Request = { command: nbd.WRITE, cookie: 1n, offset: 0, payload: pattern(512) };

  test("DISC: what is in flight is answered, nothing after it is taken", async () => {
    const { device, open } = gated();
    const peer = new EventPeer(device);
    const [late] = reads(1, 512);
    if (late === undefined) throw new Error("no request");
    peer.sendAll([write, { command: nbd.DISC, cookie: 2n }, late]);
    const outcome = peer.connection.outcome(5000);
    await settle();
    expect(peer.isEnded).toBe(false);
    open();
    expect(await outcome).toEqual({ ending: "disconnect", left: 0 });
    expect((await peer.replies([write])).map((reply) => reply.error)).toEqual([0]);
    expect(device.bytes.subarray(0, 512)).toEqual(pattern(512));
    expect(peer.connection.statistics.requests).toBe(1);
  });

  test("a peer that sends no more still gets its replies", async () => {
    const { device, open } = gated();
    const peer = new EventPeer(device);
    peer.sendAll([write]);
    peer.connection.ended();
    open();
    expect(await peer.connection.outcome(5000)).toEqual({ ending: "closed", left: 0 });
    expect(await peer.replies([write])).toHaveLength(1);
  });

  test.each([0, 1, 27, 28, 29, 300])("gone after %d bytes of a write: all is given back", async (bytes) => {
    const device = new Shadow(SIZE);
    const peer = new EventPeer(device);
    peer.send(nbd.encode(write).slice(0, bytes));
    peer.isGone = true;
    peer.connection.closed();
    expect(await peer.connection.outcome(5000)).toEqual({ ending: "closed", left: 0 });
    expect(peer.service.pool.usedBytes).toBe(0);
    expect(peer.service.order.size).toBe(0);
    expect(device.calls).toEqual([]);
  });

  test("gone while requests are in flight: they are awaited, their replies dropped", async () => {
    const { device, open } = gated();
    const peer = new EventPeer(device);
    peer.sendAll([write, ...reads(4, 64 * 1024, 10)]);
    peer.isGone = true;
    peer.connection.closed();
    const outcome = peer.connection.outcome(5000);
    await settle();
    expect(peer.service.pool.usedBytes).toBeGreaterThan(0);
    open();
    expect(await outcome).toEqual({ ending: "closed", left: 0 });
    await until("all is given back", () => peer.service.pool.usedBytes === 0);
    expect(peer.received()).toHaveLength(0);
  });

  test("a device that does not answer is not awaited for ever", async () => {
    const { device } = gated();
    const peer = new EventPeer(device);
    peer.sendAll([write]);
    peer.connection.stop();
    expect(await peer.connection.outcome(20)).toEqual({ ending: "stopped", left: 1 });
  });

  test("within a request it waits for the peer; between requests it does not", () => {
    const peer = new EventPeer(new Shadow(SIZE));
    expect(peer.connection.waitsForPeer).toBe(false);
    peer.send(nbd.encode(write).slice(0, 10));
    expect(peer.connection.waitsForPeer).toBe(true);
    peer.send(nbd.encode(write).slice(10, 100));
    expect(peer.connection.waitsForPeer).toBe(true);
    peer.send(nbd.encode(write).slice(100));
    peer.connection.drained();
    expect(peer.connection.waitsForPeer).toBe(false);
  });
});
