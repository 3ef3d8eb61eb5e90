/** Which client is stuck, and which is only slow. The rule is told the time, so that no test waits. */
import { describe, expect, test } from "bun:test";
import { Stall } from "../../../../src/nbd/connection/stall.ts";
import * as nbd from "../../../support/golden.ts";
import { HeldDevice } from "../../../support/held-device.ts";
import { Peer } from "../../../support/peer.ts";
import { Shadow } from "../../../support/shadow.ts";

const MIB = 2 ** 20;
const LIMIT_MS = 30_000;

/** After how long it is over, in milliseconds, where `rate` bytes of 32 MiB move in one; undefined if they all do. */
function patience(rate: number, limitMs: number, isShort: boolean): number | undefined {
  const stall = new Stall();
  const start = 1000;
  const bytes = 32 * MIB;
  for (let elapsed = 0; elapsed * rate < bytes; elapsed += 100)
    if (stall.isOver(1, bytes - elapsed * rate, limitMs, isShort, start + elapsed)) return elapsed;
  return undefined;
}

describe("the rule", () => {
  test.each([
    ["what does not move", 0, LIMIT_MS, false, 30_000],
    ["a byte now and then is as good as nothing", 0.01, LIMIT_MS, false, 30_100],
    ["half of 64 KiB a second", 32.768, LIMIT_MS, false, 60_000],
    ["64 KiB a second", 65.536, LIMIT_MS, false, undefined],
    ["what does not move while others wait for memory", 0, LIMIT_MS, true, 2000],
    ["half a MiB a second while others wait", 524.288, LIMIT_MS, true, 4000],
    ["a MiB a second while others wait", 1048.576, LIMIT_MS, true, undefined],
    ["where the limit is short", 0, 100, true, 100],
  ])("%s", (_, rate, limitMs, isShort, expected) => {
    expect(patience(rate, limitMs, isShort)).toBe(expected);
  });

  test("each thing has its own time, and nothing has none", () => {
    const stall = new Stall();
    for (let number = 0; number < 100; number += 1)
      expect(stall.isOver(number, MIB, 50, false, number * 49)).toBe(false);
    expect(stall.isOver(-1, 0, 50, false, 1e9)).toBe(false);
    expect(stall.isOver(100, 0, 50, false, 2e9)).toBe(false);
    expect(stall.isOver(100, 0, 50, false, 2e9 + 50)).toBe(true);
  });
});

/** Whether it is stuck if nothing happens for two minutes. */
function isStuck(peer: Peer): boolean {
  peer.session.isStuck(LIMIT_MS, 0);
  return peer.session.isStuck(LIMIT_MS, 120_000);
}

describe("a connection", () => {
  const write: nbd.Request = { command: nbd.WRITE, cookie: 1n, offset: 0, payload: new Uint8Array(512) };
  const bytes = nbd.encode(write);

  test("is stuck within a request, and not between two", () => {
    using peer = new Peer(new Shadow(MIB));
    for (const [from, to, stuck] of [
      [0, 0, false],
      [0, 10, true],
      [10, 100, true],
      [100, bytes.length, false],
    ] as const) {
      peer.send(bytes.slice(from, to));
      peer.run();
      expect([to, isStuck(peer)]).toEqual([to, stuck]);
    }
  });

  test("is stuck with replies that are not taken", () => {
    using peer = new Peer(new Shadow(4 * MIB));
    peer.isDeaf = true;
    peer.send(nbd.encode({ command: nbd.READ, cookie: 1n, length: 4 * MIB }));
    peer.run();
    expect(isStuck(peer)).toBe(true);
    peer.isDeaf = false;
    peer.run();
    expect(isStuck(peer)).toBe(false);
  });

  test("is not stuck while the device takes its time, though the next request is there in part", () => {
    using peer = new Peer(new HeldDevice(MIB), { queueDepth: 1 });
    peer.send(nbd.concatenate([bytes, bytes.slice(0, 100)]));
    peer.run();
    expect(peer.connection.held).toBe(1);
    expect(isStuck(peer)).toBe(false);
  });
});
