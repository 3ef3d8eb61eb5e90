/** A connection's limits, in number and in bytes, on both sides. */
import { describe, expect, test } from "bun:test";
import * as nbd from "../../../support/golden.ts";
import { turns } from "../../../support/async-devices.ts";
import { HeldDevice } from "../../../support/held-device.ts";
import { Peer } from "../../../support/peer.ts";
import { Shadow } from "../../../support/shadow.ts";

const MIB = 2 ** 20;
const SIZE = 64 * MIB;

/** Lets the device do all its requests, including new ones, until all replies are there. */
async function answered(device: HeldDevice, peer: Peer, requests: readonly nbd.Request[]): Promise<void> {
  const wanted = peer.connection.requests + requests.length;
  await peer.until("all is answered", () => {
    device.letAllGo();
    return peer.connection.requests === wanted && !peer.connection.hasReplies;
  });
  expect(nbd.decodeReplies(peer.received(), requests)).toHaveLength(requests.length);
}

describe("requests in", () => {
  test.each([1, 16, undefined])("no more than the queue depth of %p reach the device", async (queueDepth) => {
    const device = new HeldDevice(MIB);
    using peer = new Peer(device, { queueDepth });
    const requests = nbd.readsOf(200, 512);
    peer.exchange(requests);
    expect(device.names).toHaveLength(queueDepth ?? 128);
    expect(peer.connection.waitsFor).toBe("device");
    expect(peer.session.events).toBe(0);
    // A completed request makes room for the next, although the socket has no news.
    device.letGo("read 0");
    peer.run();
    expect(device.names).toHaveLength(queueDepth ?? 128);
    expect(nbd.decodeReplies(peer.received(), requests)).toHaveLength(1);
    await answered(device, peer, requests.slice(1));
  });

  test("what a receive that waits has brought is there to be done, though the socket has no news of it", () => {
    using peer = new Peer(new Shadow(SIZE));
    const [request] = nbd.readsOf(1, 512);
    if (request === undefined) throw new Error("no request");
    peer.run();
    peer.send(nbd.encode(request));
    expect(peer.session.isReady).toBe(false);
    expect(peer.session.await(true)).toBe("news");
    expect(peer.session.isReady).toBe(true);
    peer.run();
    expect(nbd.decodeReplies(peer.received(), [request])).toHaveLength(1);
  });

  test("one that has all the memory leaves enough for the short ones of others; long ones wait for it", async () => {
    const device = new HeldDevice(SIZE);
    using greedy = new Peer(device, { poolBytes: 32 * MIB });
    using other = new Peer(device, { service: greedy.service });
    const [all, small] = [nbd.readsOf(64, MIB), nbd.readsOf(8, 4096, 4096, 100)];
    greedy.exchange(all);
    expect(device.names).toHaveLength(32);
    other.exchange(small);
    expect(device.names).toHaveLength(32 + 8);
    // A request for more memory than is free waits, and is told when it need not.
    const large: nbd.Request = { command: nbd.READ, cookie: 200n, offset: 0, length: 32 * MIB };
    other.exchange([large]);
    expect(other.connection.waitsFor).toBe("memory");
    expect([other.session.isReady, other.session.events]).toEqual([false, 0]);
    await answered(device, greedy, all);
    await answered(device, other, [...small, large]);
    expect(greedy.service.pool.usedBytes).toBe(0);
  });

  test("one that waits for memory which it has itself is ready when the device gives that back", async () => {
    const device = new HeldDevice(SIZE);
    using peer = new Peer(device, { poolBytes: 32 * MIB });
    const requests = nbd.readsOf(2, 32 * MIB);
    peer.exchange(requests);
    expect(device.names).toEqual(["read 0"]);
    expect([peer.connection.waitsFor, peer.session.isReady]).toEqual(["memory", false]);
    device.letAllGo();
    await turns(1);
    expect(peer.session.isReady).toBe(true);
    await answered(device, peer, requests);
  });
});

describe("replies out", () => {
  test("a peer that takes nothing is not read from any more, and costs no more than its bounds", async () => {
    const device = new Shadow(SIZE);
    using peer = new Peer(device);
    peer.isDeaf = true;
    const requests = nbd.readsOf(500, 64 * 1024);
    peer.send(nbd.encodeAll(requests));
    peer.run();
    expect(peer.connection.waitsFor).toBe("output");
    const begun = device.calls.length;
    expect(begun).toBeLessThan(64);
    expect(peer.service.pool.usedBytes).toBeLessThanOrEqual(2 * MIB);
    // Later requests stay in the socket.
    peer.send(nbd.encodeAll(nbd.readsOf(10, 512, 512, 500)));
    peer.run();
    expect(device.calls).toHaveLength(begun);
    peer.isDeaf = false;
    expect(await peer.replies([...requests, ...nbd.readsOf(10, 512, 512, 500)])).toHaveLength(510);
  });
});
