/** Each request's effect on the device, and its answer, for a plain device and one in memory. */
import { describe, expect, test } from "bun:test";
import { Deadbeef } from "../../../../devices/deadbeef.ts";
import { Ramdisk } from "../../../../devices/ramdisk.ts";
import type { BlockDevice } from "../../../../src/device.ts";
import { ErrnoError } from "../../../../src/errors.ts";
import * as nbd from "../../../support/golden.ts";
import { Peer } from "../../../support/peer.ts";
import { pattern } from "../../../support/random.ts";
import { contents, fill, KINDS, type Method, Shadow } from "../../../support/shadow.ts";

const SIZE = 64 * 1024;
const DATA = pattern(SIZE);
const COOKIE = 0xfedc_ba98_7654_3210n;

/** One request of each kind that a device can fail, and the method that does it. */
const ONE_OF_EACH: readonly (readonly [Method, nbd.Request])[] = [
  ["read", { command: nbd.READ, cookie: COOKIE, offset: 1024, length: 2048 }],
  ["write", { command: nbd.WRITE, cookie: COOKIE, offset: 1024, payload: pattern(2048, 2) }],
  ["flush", { command: nbd.FLUSH, cookie: COOKIE }],
  ["trim", { command: nbd.TRIM, cookie: COOKIE, offset: 1024, length: 2048 }],
  ["writeZeroes", { command: nbd.WRITE_ZEROES, cookie: COOKIE, offset: 1024, length: 2048 }],
];

/** The replies' errors, in order. */
function errors(replies: readonly nbd.Reply[]): number[] {
  return replies.map((reply) => reply.error);
}

describe.each(KINDS)("a %s device", (kind, make) => {
  test("READ is answered, byte for byte, with the header and the data", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    fill(device, DATA);
    peer.send(nbd.hex("25609513 0000 0000 fedcba9876543210 0000000000000400 00000800"));
    expect(peer.run()).toBe("turn");
    const golden = [nbd.hex("67446698 00000000 fedcba9876543210"), DATA.slice(1024, 3072)];
    expect(peer.received()).toEqual(nbd.concatenate(golden));
    expect(peer.connection.requests).toBe(1);
    expect(device.calls).toEqual(kind === "memory" ? [] : ["read 1024+2048"]);
  });

  test("WRITE stores its payload and nothing else, and is answered with a header alone", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    const payload = pattern(1024, 2);
    const header = nbd.hex("25609513 0000 0001 fedcba9876543210 0000000000000200 00000400");
    peer.send(nbd.concatenate([header, payload]));
    expect(peer.run()).toBe("turn");
    expect(peer.received()).toEqual(nbd.hex("67446698 00000000 fedcba9876543210"));
    expect(device.calls).toEqual(kind === "memory" ? [] : ["write 512+1024"]);
    const stored = nbd.concatenate([new Uint8Array(512), payload, new Uint8Array(SIZE - 1536)]);
    expect(contents(device)).toEqual(stored);
  });

  test.each([
    ["FLUSH", nbd.FLUSH, 0, 0, 0, "flush"],
    ["TRIM", nbd.TRIM, 0, 4096, 8192, "trim 4096+8192"],
    ["WRITE_ZEROES", nbd.WRITE_ZEROES, 0, 512, 1024, "writeZeroes 512+1024 hole"],
    ["WRITE_ZEROES, NO_HOLE", nbd.WRITE_ZEROES, nbd.NO_HOLE, 512, 1024, "writeZeroes 512+1024"],
    ["the last block", nbd.TRIM, 0, SIZE - 512, 512, "trim 65024+512"],
    ["the whole device", nbd.WRITE_ZEROES, 0, 0, SIZE, "writeZeroes 0+65536 hole"],
  ])("%s calls its method with what the header says", (_, command, flags, offset, length, call) => {
    const device = make(SIZE);
    using peer = new Peer(device);
    fill(device, DATA);
    const replies = peer.exchange([{ command, flags, cookie: COOKIE, offset, length }]);
    expect(replies).toEqual([{ cookie: COOKIE, error: 0, payload: new Uint8Array() }]);
    expect(device.calls).toEqual([call]);
    const left = DATA.slice();
    if (command !== nbd.FLUSH) left.fill(0, offset, offset + length);
    expect(contents(device)).toEqual(left);
  });

  test("FUA on WRITE, TRIM and WRITE_ZEROES is the request and then a flush", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    const { WRITE, TRIM, WRITE_ZEROES, FUA, NO_HOLE } = nbd;
    const replies = peer.exchange([
      { command: WRITE, flags: FUA, cookie: 1n, offset: 0, payload: DATA.slice(0, 512) },
      { command: TRIM, flags: FUA, cookie: 2n, offset: 512, length: 512 },
      { command: WRITE_ZEROES, flags: FUA | NO_HOLE, cookie: 3n, offset: 1024, length: 512 },
    ]);
    expect(errors(replies)).toEqual([0, 0, 0]);
    const write = kind === "memory" ? [] : ["write 0+512"];
    const expected = [...write, "flush", "trim 512+512", "flush", "writeZeroes 1024+512", "flush"];
    expect(device.calls).toEqual(expected);
    expect(contents(device).subarray(0, 512)).toEqual(DATA.slice(0, 512));
  });

  test("FUA on READ and FLUSH, which have no use for it, is let pass", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    const replies = peer.exchange([
      { command: nbd.READ, flags: nbd.FUA, cookie: 1n, offset: 0, length: 512 },
      { command: nbd.FLUSH, flags: nbd.FUA, cookie: 2n },
    ]);
    expect(errors(replies)).toEqual([0, 0]);
  });

  test("DISC ends the connection without a reply; what came before it is answered, what follows is not", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    const read: nbd.Request = { command: nbd.READ, cookie: 1n, offset: 0, length: 512 };
    const late: nbd.Request = { command: nbd.TRIM, cookie: 3n, offset: 0, length: 512 };
    peer.send(nbd.encodeAll([read, { command: nbd.DISC, cookie: 2n }, late]));
    expect(peer.run()).toBe("disconnect");
    expect(nbd.decodeReplies(peer.received(), [read])).toHaveLength(1);
    expect(device.calls).not.toContain("trim 0+512");
  });

  test("the trace sees every request with its errno, DISC too", () => {
    const seen: number[][] = [];
    using peer = new Peer(make(SIZE), { trace: (...request) => seen.push(request.slice(0, 5)) });
    const { READ, WRITE, TRIM, DISC, FUA } = nbd;
    peer.send(
      nbd.encodeAll([
        { command: READ, cookie: 1n, offset: 512, length: 1024 },
        { command: WRITE, flags: FUA, cookie: 2n, offset: SIZE, payload: DATA.slice(0, 512) },
        { command: TRIM, cookie: 3n, offset: 0, length: 512 },
        { command: DISC, cookie: 4n },
      ]),
    );
    peer.run();
    expect(seen).toEqual([
      [0, 0, 512, 1024, 0],
      [1, 0x10000, SIZE, 512, nbd.ENOSPC],
      [4, 0, 0, 512, 0],
      [2, 0, 0, 0, 0],
    ]);
  });

  describe("a method that fails", () => {
    // A memory device is not asked to read or write.
    const failing = ONE_OF_EACH.filter(
      ([method]) => kind === "plain" || (method !== "read" && method !== "write"),
    );
    // Each with the errors that the peer must see.
    const ways: readonly (readonly [string, number, () => void])[] = [
      ["an ErrnoError by name", nbd.ENOSPC, () => fail(new ErrnoError("ENOSPC", "full"))],
      ["an ErrnoError of a read-only medium", nbd.EPERM, () => fail(new ErrnoError("EROFS"))],
      ["an Error", nbd.EIO, () => fail(new Error("a bug"))],
      ["a rejected promise", nbd.ENOMEM, () => Promise.reject(new ErrnoError("ENOMEM"))],
    ];
    const table = failing.flatMap(([method, request]) =>
      ways.map(([name, error, fault]) => ({ method, request, name, error, fault })),
    );

    test.each(table)("$method throws $name: an error and no payload", ({ method, request, error, fault }) => {
      const device = make(SIZE);
      using peer = new Peer(device);
      fill(device, DATA);
      device.faults.set(method, fault);
      const failed = peer.exchange([request]);
      expect(failed).toEqual([{ cookie: COOKIE, error, payload: new Uint8Array() }]);
      expect(peer.lines).toHaveLength(1);
      expect(contents(device)).toEqual(DATA);
      // The connection and the device continue.
      expect(errors(peer.exchange(ONE_OF_EACH.slice(-1).map(([, again]) => again)))).toEqual([0]);
      const after = peer.exchange([{ command: nbd.READ, cookie: 7n, offset: 4096, length: 512 }]);
      expect(after).toEqual([{ cookie: 7n, error: 0, payload: DATA.slice(4096, 4608) }]);
    });

    test("an error in the middle of a batch moves no other reply", () => {
      const device = make(SIZE);
      using peer = new Peer(device);
      fill(device, DATA);
      device.faults.set("flush", () => fail(new ErrnoError("EIO")));
      const replies = peer.exchange([
        { command: nbd.READ, cookie: 1n, offset: 0, length: 512 },
        { command: nbd.FLUSH, cookie: 2n },
        { command: nbd.READ, cookie: 3n, offset: SIZE, length: 512 },
        { command: nbd.READ, cookie: 4n, offset: 512, length: 512 },
      ]);
      expect(errors(replies)).toEqual([0, nbd.EIO, nbd.EINVAL, 0]);
      expect(replies[0]?.payload).toEqual(DATA.slice(0, 512));
      expect(replies[3]?.payload).toEqual(DATA.slice(512, 1024));
    });

    test("the flush of an emulated FUA: the write's reply carries its error", () => {
      const device = make(SIZE);
      using peer = new Peer(device);
      device.faults.set("flush", () => fail(new ErrnoError("ENOSPC")));
      const write = { command: nbd.WRITE, flags: nbd.FUA, cookie: 1n, payload: DATA.slice(0, 512) };
      expect(errors(peer.exchange([write]))).toEqual([nbd.ENOSPC]);
    });
  });
});

function fail(thrown: unknown): never {
  throw thrown;
}

describe("capabilities that are not there", () => {
  const write: nbd.Request = { command: nbd.WRITE, cookie: 1n, offset: 0, payload: DATA.slice(0, 512) };
  const trim: nbd.Request = { command: nbd.TRIM, cookie: 2n, offset: 0, length: 512 };
  const zeroes: nbd.Request = { command: nbd.WRITE_ZEROES, cookie: 3n, offset: 0, length: 512 };
  const read: nbd.Request = { command: nbd.READ, cookie: 4n, offset: 0, length: 512 };

  test.each<[string, BlockDevice, boolean]>([
    ["a device without write", new Deadbeef(SIZE), false],
    ["a plain device served read-only", new Shadow(SIZE), true],
    ["a memory device served read-only", new Ramdisk(SIZE), true],
  ])("%s: EPERM for what changes data, the payload taken off the stream", (_, device, readOnly) => {
    using peer = new Peer(device, { readOnly });
    const replies = peer.exchange([write, trim, zeroes, read]);
    expect(errors(replies)).toEqual([nbd.EPERM, nbd.EPERM, nbd.EPERM, 0]);
    const unchanged = device instanceof Deadbeef ? [0xde, 0xad, 0xbe, 0xef] : [0, 0, 0, 0];
    expect([...(replies[3]?.payload.subarray(0, 4) ?? [])]).toEqual(unchanged);
  });

  test("FUA for a device without flush is EINVAL, and the payload is not stored", () => {
    const device = new Ramdisk(SIZE);
    using peer = new Peer(device);
    const replies = peer.exchange([{ ...write, flags: nbd.FUA }, read]);
    expect(errors(replies)).toEqual([nbd.EINVAL, 0]);
    expect(replies[1]?.payload).toEqual(new Uint8Array(512));
  });
});
