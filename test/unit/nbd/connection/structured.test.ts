/** Structured replies: their bytes, whenever the device answers. */
import { describe, expect, test } from "bun:test";
import { Ramdisk } from "../../../../devices/ramdisk.ts";
import type { BlockDevice, Extent } from "../../../../src/device.ts";
import { ErrnoError } from "../../../../src/errors.ts";
import { turns } from "../../../support/async-devices.ts";
import * as nbd from "../../../support/golden.ts";
import { RequestSource } from "../../../support/model.ts";
import { Peer } from "../../../support/peer.ts";
import { chooseSeed, pattern, Random } from "../../../support/random.ts";
import { fill, KINDS, Shadow } from "../../../support/shadow.ts";

const SIZE = 64 * 1024;
const BLOCK_STATUS = 7;
const DF = 1 << 2;
const REQ_ONE = 1 << 3;
const BOTH = { structured: true, allocation: true };
const encoder = new TextEncoder();

/** Data, a hole, and data to the end. */
class Holed extends Shadow {
  extents(offset: number, length: number): Extent[] {
    this.calls.push(`extents ${offset}+${length}`);
    return [
      { length: 4096, hole: false, zero: false },
      { length: 8192, hole: true, zero: true },
      { length: SIZE, hole: false, zero: false },
    ];
  }
}

function sent(peer: Peer, ...requests: nbd.Request[]): Uint8Array {
  peer.send(nbd.encodeAll(requests));
  peer.run();
  return peer.received();
}

describe.each(KINDS)("a %s device", (_, make) => {
  test("READ brings one chunk of data with its offset, and DF is honoured", () => {
    const device = make(SIZE);
    fill(device, pattern(SIZE));
    using peer = new Peer(device, BOTH);
    const read = { command: nbd.READ, cookie: 0x0102_0304_0506_0708n, offset: 512, length: 512 };
    for (const flags of [0, DF]) {
      const bytes = sent(peer, { ...read, flags });
      expect(bytes.slice(0, 28)).toEqual(
        nbd.hex("668e33ef 0001 0001 0102030405060708 00000208 0000000000000200"),
      );
      expect(bytes.slice(28)).toEqual(pattern(SIZE).slice(512, 1024));
    }
  });

  test("WRITE, FLUSH and TRIM bring an empty chunk, an error its text", () => {
    using peer = new Peer(make(SIZE), BOTH);
    const bytes = sent(
      peer,
      { command: nbd.WRITE, cookie: 1n, payload: pattern(512) },
      { command: nbd.FLUSH, cookie: 2n },
      { command: nbd.TRIM, cookie: 3n, offset: SIZE, length: 512 },
    );
    const text = encoder.encode("No space left on device");
    expect(bytes).toEqual(
      nbd.concatenate([
        nbd.hex("668e33ef 0001 0000 0000000000000001 00000000"),
        nbd.hex("668e33ef 0001 0000 0000000000000002 00000000"),
        nbd.hex("668e33ef 0001 8001 0000000000000003 0000001d 0000001c 0017"),
        text,
      ]),
    );
    expect(peer.connection.statistics).toEqual({ requests: 3, errors: 1, bytesRead: 0, bytesWritten: 512 });
  });
});

describe("block status", () => {
  test("the extents of the range, the last cut off; with REQ_ONE the first", () => {
    using peer = new Peer(new Holed(SIZE), BOTH);
    const request = { command: BLOCK_STATUS, cookie: 1n, offset: 0, length: SIZE };
    expect(sent(peer, request)).toEqual(
      nbd.hex(`668e33ef 0001 0005 0000000000000001 0000001c 00000001
               00001000 00000000 00002000 00000003 0000d000 00000000`),
    );
    expect(sent(peer, { ...request, flags: REQ_ONE })).toEqual(
      nbd.hex("668e33ef 0001 0005 0000000000000001 0000000c 00000001 00001000 00000000"),
    );
  });

  test("FUA is valid with it, and changes nothing", () => {
    using peer = new Peer(new Holed(SIZE), BOTH);
    const request = { command: BLOCK_STATUS, cookie: 1n, offset: 0, length: SIZE };
    expect(sent(peer, { ...request, flags: 1 })).toEqual(sent(peer, request));
    expect(sent(peer, { ...request, flags: 1 }).slice(6, 8)).toEqual(nbd.hex("0005"));
  });

  test("is EINVAL where it was not agreed on, and beyond the end", () => {
    const request = { command: BLOCK_STATUS, cookie: 1n, offset: 0, length: 512 };
    using without = new Peer(new Holed(SIZE), { structured: true });
    using simple = new Peer(new Holed(SIZE));
    using beyond = new Peer(new Holed(SIZE), BOTH);
    expect(sent(without, request).slice(20, 24)).toEqual(nbd.hex("00000016"));
    expect(sent(simple, request)).toEqual(nbd.hex("67446698 00000016 0000000000000001"));
    expect(sent(beyond, { ...request, offset: SIZE }).slice(20, 24)).toEqual(nbd.hex("00000016"));
  });

  test("the longest answers, many at once, come whole", () => {
    const striped: BlockDevice = {
      size: 8 * 2 ** 20,
      read: () => undefined,
      extents: () =>
        Array.from({ length: 5000 }, (_, index) => ({ length: 512, hole: index % 2 === 0, zero: false })),
    };
    using peer = new Peer(striped, BOTH);
    const requests = Array.from({ length: 20 }, (_, index) => ({
      command: BLOCK_STATUS,
      cookie: BigInt(index),
      offset: 0,
      length: 8 * 2 ** 20,
    }));
    const bytes = sent(peer, ...requests);
    const each = 20 + 4 + 8 * 4096;
    expect(bytes).toHaveLength(requests.length * each);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (const index of requests.keys()) {
      expect(view.getUint32(index * each)).toBe(0x668e_33ef);
      expect(view.getBigUint64(index * each + 8)).toBe(BigInt(index));
    }
  });

  test("may be promised; a promise that is rejected is its errno", async () => {
    const holes = Promise.withResolvers<Extent[]>();
    const promises = [holes.promise, Promise.reject(new ErrnoError("EIO"))];
    const device: BlockDevice = {
      size: SIZE,
      read: () => undefined,
      extents: () => promises.shift() ?? [],
    };
    using peer = new Peer(device, BOTH);
    const request = { command: BLOCK_STATUS, offset: 0, length: 1024 };
    expect(sent(peer, { ...request, cookie: 1n })).toHaveLength(0);
    expect(sent(peer, { ...request, cookie: 2n }).slice(4, 24)).toEqual(
      nbd.hex("0001 8001 0000000000000002 00000018 00000005"),
    );
    holes.resolve([{ length: 1024, hole: true, zero: true }]);
    await turns(1);
    expect(sent(peer)).toEqual(
      nbd.hex("668e33ef 0001 0005 0000000000000001 0000000c 00000001 00000400 00000003"),
    );
  });
});

test.each([true, false])(
  "a device of promises is answered for with the same bytes: structured %p",
  async (structured) => {
    const random = new Random(chooseSeed(`promises, structured replies ${structured}`));
    const source = new RequestSource(random, SIZE, 8192);
    const options = { structured, allocation: structured };
    using prompt = new Peer(new Holed(SIZE), options);
    const device = new Holed(SIZE);
    device.hold = () => Promise.resolve();
    // One at a time: more might be answered in another order.
    using slow = new Peer(device, { ...options, queueDepth: 1 });
    for (let round = 0; round < 100; round += 1) {
      const requests = Array.from({ length: 20 }, () => source.next());
      requests.push({ command: BLOCK_STATUS, cookie: 5n, offset: 512 * random.below(128), length: 512 });
      const bytes = sent(prompt, ...requests);
      slow.send(nbd.encodeAll(requests));
      await slow.until("all is answered", () => slow.connection.requests === prompt.connection.requests);
      expect(Buffer.compare(slow.received(), bytes)).toBe(0);
    }
    expect(slow.connection.statistics).toEqual(prompt.connection.statistics);
  },
);

test("the RAM disk tells its holes", () => {
  using peer = new Peer(new Ramdisk(SIZE), BOTH);
  sent(peer, { command: nbd.WRITE, cookie: 1n, offset: 8192, payload: pattern(4096) });
  expect(sent(peer, { command: BLOCK_STATUS, cookie: 2n, offset: 0, length: SIZE })).toEqual(
    nbd.hex(`668e33ef 0001 0005 0000000000000002 0000001c 00000001
             00002000 00000003 00001000 00000000 0000d000 00000003`),
  );
});
