/** Requests at and beyond the limits of length, and peers that take their time. */
import { describe, expect, test } from "bun:test";
import { Ramdisk } from "../../../../devices/ramdisk.ts";
import type { BlockDevice } from "../../../../src/device.ts";
import * as nbd from "../../../support/golden.ts";
import { memoryUse } from "../../../support/memory-use.ts";
import { Peer } from "../../../support/peer.ts";
import { CAP_NET_ADMIN, hasCapability } from "../../../support/privileges.ts";
import { longPattern } from "../../../support/random.ts";
import { contents, fill, KINDS } from "../../../support/shadow.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const LONGEST = 32 * MIB;
const DATA = longPattern(40 * MIB);

/** Whether two arrays are equal; toEqual takes seconds for megabytes. */
function same(one: Uint8Array | undefined, other: Uint8Array): boolean {
  return one !== undefined && Buffer.compare(one, other) === 0;
}

describe.each(KINDS)("a %s device", (kind, make) => {
  test("WRITE of 32 MiB is stored", () => {
    const device = make(40 * MIB);
    using peer = new Peer(device);
    const payload = DATA.subarray(0, LONGEST);
    const write = { command: nbd.WRITE, cookie: 1n, offset: MIB, payload };
    expect(peer.pour(nbd.encode(write))).toBe("turn");
    expect(peer.received()).toEqual(nbd.hex("67446698 00000000 0000000000000001"));
    const after = contents(device);
    expect(same(after.subarray(MIB, MIB + LONGEST), DATA.subarray(0, LONGEST))).toBe(true);
    expect(same(after.subarray(0, MIB), new Uint8Array(MIB))).toBe(true);
    expect(same(after.subarray(MIB + LONGEST), new Uint8Array(7 * MIB))).toBe(true);
  });

  test("READ of 32 MiB arrives whole, and so do the replies around it", () => {
    const device = make(40 * MIB);
    using peer = new Peer(device);
    fill(device, DATA);
    const requests: readonly nbd.Request[] = [
      { command: nbd.READ, cookie: 1n, offset: 0, length: 4096 },
      { command: nbd.READ, cookie: 2n, offset: MIB, length: LONGEST },
      { command: nbd.READ, cookie: 3n, offset: 39 * MIB, length: MIB },
    ];
    const [first, long, last] = peer.exchange(requests);
    expect(same(first?.payload, DATA.subarray(0, 4096))).toBe(true);
    expect(same(long?.payload, DATA.subarray(MIB, MIB + LONGEST))).toBe(true);
    expect(same(last?.payload, DATA.subarray(39 * MIB))).toBe(true);
    expect(peer.service.pool.usedBytes).toBe(0);
  });

  test.each([
    ["one block more than 32 MiB", LONGEST + 512],
    ["33 MiB", 33 * MIB],
    ["more than twice 32 MiB", 70 * MIB],
  ])("WRITE of %s: the payload is taken off the stream, EINVAL, and the connection goes on", (_, length) => {
    const device = make(128 * MIB);
    using peer = new Peer(device);
    const write = { command: nbd.WRITE, cookie: 1n, payload: new Uint8Array(length).fill(0xff) };
    const requests: readonly nbd.Request[] = [
      { command: nbd.READ, cookie: 4n, offset: 0, length: 512 },
      { ...write, offset: 512 },
      { command: nbd.READ, cookie: 2n, offset: 512, length: 512 },
    ];
    expect(peer.pour(nbd.encodeAll(requests))).toBe("turn");
    expect(nbd.decodeReplies(peer.received(), requests)).toEqual([
      { cookie: 4n, error: 0, payload: new Uint8Array(512) },
      { cookie: 1n, error: nbd.EINVAL, payload: new Uint8Array() },
      { cookie: 2n, error: 0, payload: new Uint8Array(512) },
    ]);
    expect(device.calls.filter((call) => call.startsWith("write"))).toEqual([]);
  });

  test.skipIf(!hasCapability(CAP_NET_ADMIN))(
    "WRITE of 70 MiB that has come in at once is taken off alike (needs root: a large socket buffer)",
    () => {
      using peer = new Peer(make(128 * MIB), { bufferBytes: 128 * MIB });
      const write = { command: nbd.WRITE, cookie: 1n, payload: new Uint8Array(70 * MIB).fill(0xff) };
      const replies = peer.exchange([write, { command: nbd.READ, cookie: 2n, offset: 0, length: 512 }]);
      expect(replies).toEqual([
        { cookie: 1n, error: nbd.EINVAL, payload: new Uint8Array() },
        { cookie: 2n, error: 0, payload: new Uint8Array(512) },
      ]);
    },
  );

  test("long and short writes in turn are all stored, however the stream falls into receives", () => {
    const device = make(8 * MIB);
    using peer = new Peer(device);
    const lengths = [512, 256 * 1024, 32 * 1024, 4096, 31 * 1024, MIB, 512, 512, 128 * 1024, 33 * 1024, 4096];
    const requests: nbd.Request[] = [];
    let at = 0;
    for (const [index, length] of lengths.entries()) {
      const payload = DATA.subarray(at, at + length);
      requests.push({ command: nbd.WRITE, cookie: BigInt(index), offset: at, payload });
      requests.push({ command: nbd.FLUSH, cookie: BigInt(1000 + index) });
      at += length;
    }
    expect(peer.pour(nbd.encodeAll(requests))).toBe("turn");
    const replies = nbd.decodeReplies(peer.received(), requests);
    expect(replies.map((reply) => reply.cookie)).toEqual(requests.map((request) => request.cookie));
    expect(replies.every((reply) => reply.error === 0)).toBe(true);
    expect(same(contents(device).subarray(0, at), DATA.subarray(0, at))).toBe(true);
  });

  test(`the ${kind} device's TRIM and WRITE_ZEROES of nearly 4 GiB allocate nothing of that size`, () => {
    const calls: string[] = [];
    using peer = new Peer(kind === "memory" ? new Ramdisk(5 * GIB) : hugeDevice(calls));
    const length = 0xffff_f000;
    const before = memoryUse();
    const replies = peer.exchange([
      { command: nbd.TRIM, cookie: 1n, offset: GIB, length },
      { command: nbd.WRITE_ZEROES, cookie: 2n, offset: 0, length },
      { command: nbd.TRIM, cookie: 3n, offset: GIB + 8192, length },
    ]);
    expect(replies.map((reply) => reply.error)).toEqual([0, 0, nbd.ENOSPC]);
    const after = memoryUse();
    expect(after.residentPeak - before.residentPeak).toBeLessThan(16 * MIB);
    expect(after.virtualPeak - before.virtualPeak).toBeLessThan(GIB);
    if (kind === "plain") expect(calls).toEqual([`trim ${GIB} ${length}`, `writeZeroes 0 ${length}`]);
  });
});

/** 5 GiB without any memory. */
function hugeDevice(calls: string[]): BlockDevice {
  return {
    size: 5 * GIB,
    read: () => undefined,
    write: () => undefined,
    trim: (offset, length) => void calls.push(`trim ${offset} ${length}`),
    writeZeroes: (offset, length) => void calls.push(`writeZeroes ${offset} ${length}`),
  };
}
