/** The end of a connection: what is answered, what is freed, and what it does not wait for. */
import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { Session } from "../../../../src/nbd/connection/session.ts";
import { turns } from "../../../support/async-devices.ts";
import * as nbd from "../../../support/golden.ts";
import { HeldDevice } from "../../../support/held-device.ts";
import { Peer } from "../../../support/peer.ts";
import { pattern } from "../../../support/random.ts";
import { Shadow } from "../../../support/shadow.ts";

const SIZE = 2 ** 20;
const write: nbd.Request = { command: nbd.WRITE, cookie: 1n, offset: 0, payload: pattern(512, 5) };
/** None of them is of what is written. */
const reads = nbd.readsOf(5, 65_536, 65_536, 10).slice(1);

/** Expects that the session is over, and that nothing of it is left. */
function expectOver(peer: Peer): void {
  expect(peer.session.isOver).toBe(true);
  const { pool, order } = peer.service;
  expect([peer.connection.left, pool.usedBytes, order.size]).toEqual([0, 0, 0]);
}

test("DISC: what is in flight is answered, nothing after it is taken", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device);
  peer.exchange([write, { command: nbd.DISC, cookie: 2n }, ...reads]);
  expect(peer.outcome).toBe("disconnect");
  expect([peer.session.isOver, peer.session.waitsForDevice]).toEqual([false, true]);
  expect(device.names).toEqual(["write 0"]);
  device.letAllGo();
  expect((await peer.replies([write])).map(({ error }) => error)).toEqual([0]);
  expect(peer.connection.statistics.requests).toBe(1);
  expectOver(peer);
});

test("a peer that sends no more still gets its replies", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device);
  peer.exchange([write, ...reads]);
  peer.endRequests();
  peer.run();
  expect([peer.outcome, peer.session.isOver]).toEqual(["closed", false]);
  device.letAllGo();
  expect(await peer.replies([write, ...reads])).toHaveLength(5);
  expectOver(peer);
});

test.each([0, 1, 27, 28, 29, 300])("gone after %d bytes of a write: all is given back", (bytes) => {
  const device = new Shadow(SIZE);
  using peer = new Peer(device);
  peer.send(nbd.encode(write).slice(0, bytes));
  peer.hangUp();
  peer.run();
  expect(peer.outcome).toBe("closed");
  peer.connection.close();
  expectOver(peer);
  expect(device.calls).toEqual([]);
});

test("gone while requests are in flight: they are waited for, their replies dropped", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device);
  peer.exchange([write, ...reads]);
  peer.hangUp();
  peer.run();
  expect([peer.outcome, peer.session.isOver]).toEqual(["closed", false]);
  expect(peer.service.pool.usedBytes).toBeGreaterThan(0);
  device.letAllGo();
  await peer.until("it is over", () => peer.session.isOver);
  expectOver(peer);
  expect(peer.received()).toHaveLength(0);
});

test("stop(): what is in flight is answered, what comes later is not taken", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device);
  peer.exchange([write]);
  peer.session.stop();
  peer.send(nbd.encodeAll(reads));
  peer.run();
  expect(device.names).toEqual(["write 0"]);
  device.letAllGo();
  expect(await peer.replies([write])).toHaveLength(1);
  expect(peer.outcome).toBe("stopped");
  expectOver(peer);
});

const HEADER = 28;
const WHOLE = HEADER + 512;

test.each([0, 1, HEADER - 1, HEADER, HEADER + 1, WHOLE - 1, WHOLE, WHOLE + 1])(
  "pause() after %d bytes: what has begun is answered, and another session goes on with the next request",
  (bytes) => {
    using peer = new Peer(new Shadow(SIZE));
    const requests = [write, ...reads];
    const stream = nbd.encodeAll(requests);
    peer.send(stream.slice(0, bytes));
    peer.run();
    let isPaused = false;
    peer.session.pause(() => (isPaused = true));
    expect(isPaused).toBe(bytes === 0 || bytes === WHOLE);
    peer.send(stream.slice(bytes));
    peer.run();
    expect([isPaused, peer.session.events]).toEqual([true, 0]);
    const begun = bytes === 0 ? 0 : bytes <= WHOLE ? 1 : 2;
    expect(peer.connection.requests).toBe(begun);
    // What a process has that takes the same socket over.
    const next = new Session(peer.session.fd, peer.service, {}, () => undefined);
    next.step(50);
    next.connection.close();
    while (peer.take(65_536) > 0);
    expect(nbd.decodeReplies(peer.received(), requests).map(({ error }) => error)).toEqual([0, 0, 0, 0, 0]);
    expect(next.connection.requests).toBe(requests.length - begun);
  },
);

test("pause() waits for the device; called off it goes on with whatever has come", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device);
  peer.exchange([write]);
  let pauses = 0;
  peer.session.pause(() => (pauses += 1));
  peer.send(nbd.encodeAll(reads));
  peer.run();
  expect([pauses, device.names]).toEqual([0, ["write 0"]]);
  peer.session.resume();
  peer.run();
  device.letAllGo();
  expect(await peer.replies([write, ...reads])).toHaveLength(5);
  expect(pauses).toBe(0);
  peer.session.pause(() => (pauses += 1));
  expect(pauses).toBe(1);
  peer.session.resume();
  peer.send(nbd.encodeAll([{ command: nbd.DISC, cookie: 9n }]));
  expect(peer.run()).toBe("disconnect");
});

test("pause() waits for what the device has when it was answered in its place: it would come after the next server", async () => {
  const device = new HeldDevice(SIZE);
  using peer = new Peer(device, { requestTimeoutMs: 10 });
  peer.exchange([write]);
  let isPaused = false;
  peer.session.pause(() => (isPaused = true));
  // It does not check repeatedly what arrived meanwhile.
  peer.send(nbd.encodeAll(reads));
  peer.run();
  expect(peer.session.events).toBe(0);
  expect((await peer.replies([write])).map(({ error }) => error)).toEqual([nbd.EIO]);
  expect([isPaused, peer.session.isReady]).toEqual([false, false]);
  device.letAllGo();
  await turns(1);
  expect(peer.session.isReady).toBe(true);
  peer.run();
  expect([isPaused, peer.session.isReady, device.names]).toEqual([true, false, []]);
});

describe("how long the end is held up", () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  test("by a device, where the peer wants the end: not for ever; what it has stays its own", () => {
    const device = new HeldDevice(SIZE);
    using peer = new Peer(device);
    peer.exchange([write, { command: nbd.DISC, cookie: 2n }]);
    jest.advanceTimersByTime(9_999);
    expect(peer.session.isOver).toBe(false);
    jest.advanceTimersByTime(1);
    expect([peer.session.isOver, peer.connection.left]).toEqual([true, 1]);
  });

  test("by a device, where we want it: until we do not wait any more", () => {
    using peer = new Peer(new HeldDevice(SIZE));
    peer.exchange([write]);
    peer.session.stop();
    jest.advanceTimersByTime(3_600_000);
    expect(peer.session.isOver).toBe(false);
    peer.session.leave();
    expect([peer.session.isOver, peer.connection.left]).toEqual([true, 1]);
  });

  test.each([
    ["takes none of its replies", 0, 2000],
    ["takes a little now and then", 4096, 10_000],
  ])("by a peer that %s: %d bytes at a time, %d ms", (_, bytes, endsMs) => {
    using peer = new Peer(new Shadow(SIZE), { bufferBytes: 4096 });
    peer.isDeaf = true;
    peer.send(nbd.encodeAll(reads));
    peer.session.step(50);
    peer.session.stop();
    for (let ms = 1000; ms <= endsMs; ms += 1000) {
      expect(peer.session.isOver).toBe(false);
      if (bytes > 0) peer.take(bytes);
      peer.session.step(50);
      jest.advanceTimersByTime(1000);
    }
    expect(peer.session.isOver).toBe(true);
  });
});

test("requests that were given up and settle after the end give back what they had", async () => {
  const device = new HeldDevice(SIZE);
  const peer = new Peer(device, { requestTimeoutMs: 10 });
  peer.exchange(reads);
  expect(await peer.replies(reads)).toHaveLength(4);
  peer[Symbol.dispose]();
  expect(peer.connection.left).toBe(4);
  device.letAllGo();
  await turns(1);
  expectOver(peer);
});
