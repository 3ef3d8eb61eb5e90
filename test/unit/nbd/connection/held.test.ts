/** Goal: a connection continues while the device takes its time, and the client notices no difference in order. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import type { BlockDevice } from "../../../../src/device.ts";
import { ErrnoError } from "../../../../src/errors.ts";
import { SendMessage } from "../../../../src/libc/socket.ts";
import { turns } from "../../../support/async-devices.ts";
import * as nbd from "../../../support/golden.ts";
import { HeldDevice } from "../../../support/held-device.ts";
import { Peer } from "../../../support/peer.ts";

const SIZE = 2 ** 20;
/** Reads from this offset on are answered at once. */
const PROMPT = SIZE / 2;
const BLOCK = 4096;

let device: HeldDevice;
let peer: Peer;

beforeEach(() => {
  device = new HeldDevice(SIZE, PROMPT);
  peer = new Peer(device);
});
afterEach(() => peer[Symbol.dispose]());

function read(cookie: number, offset: number, length = BLOCK): nbd.Request {
  return { command: nbd.READ, cookie: BigInt(cookie), offset, length };
}

function write(cookie: number, offset: number, byte = 7): nbd.Request {
  const payload = new Uint8Array(BLOCK).fill(byte);
  return { command: nbd.WRITE, cookie: BigInt(cookie), offset, payload };
}

function trim(cookie: number, offset: number, length: number): nbd.Request {
  return { command: nbd.TRIM, cookie: BigInt(cookie), offset, length };
}

function cookies(of: readonly nbd.Reply[]): number[] {
  return of.map(({ cookie }) => Number(cookie));
}

/** The replies to `requests` that arrive now. */
function replies(requests: readonly nbd.Request[], of = peer): nbd.Reply[] {
  of.run();
  return nbd.decodeReplies(of.received(), requests);
}

/** Lets the device do its requests, and reads the replies. */
function release(requests: readonly nbd.Request[]): nbd.Reply[] {
  device.letAllGo();
  return replies(requests);
}

test("what is there at once overtakes what is not, and what comes later is right", () => {
  const requests = [read(1, 0), read(2, PROMPT), read(3, BLOCK), read(4, PROMPT + BLOCK)];
  expect(cookies(peer.exchange(requests))).toEqual([2, 4]);
  expect(device.names).toEqual(["read 0", "read 4096"]);
  // More buffers are used meanwhile.
  for (let round = 0; round < 300; round += 1) peer.exchange([read(5, PROMPT + BLOCK * (round % 64))]);
  const late = release(requests);
  expect(cookies(late)).toEqual([3, 1]);
  for (const { cookie, payload } of late) {
    const offset = cookie === 1n ? 0 : BLOCK;
    expect(Buffer.compare(payload, device.bytes.subarray(offset, offset + BLOCK))).toBe(0);
  }
  expect(peer.connection.held).toBe(0);
});

test("all that settles in one turn is sent at once", () => {
  const requests = Array.from({ length: 32 }, (_, index) => read(index, index * BLOCK));
  expect(peer.exchange(requests)).toEqual([]);
  using send = spyOn(SendMessage.prototype, "send");
  expect(release(requests)).toHaveLength(32);
  expect(send).toHaveBeenCalledTimes(1);
});

describe("requests for the same bytes", () => {
  test.each([
    ["a read after a write of the same block", write(1, 0), read(2, 0, 512), true],
    ["a write after a read that it overlaps by a block", read(1, 0), write(2, 3584), true],
    ["a trim after a write", write(1, BLOCK), trim(2, 0, 2 * BLOCK), true],
    ["zeroes after a write", write(1, 0), { command: nbd.WRITE_ZEROES, cookie: 2n, length: 512 }, true],
    ["a write after a trim", trim(1, 0, BLOCK), write(2, 0), true],
    ["a read beside a read", read(1, 0), read(2, 512, 512), false],
    ["a write next to a write", write(1, 0), write(2, BLOCK), false],
    ["a read next to a write", write(1, BLOCK), read(2, 0), false],
    ["a flush beside a write", write(1, 0), { command: nbd.FLUSH, cookie: 2n }, false],
  ])("%s", (_, first, second, waits) => {
    expect(peer.exchange([first, second])).toEqual([]);
    expect(device.names).toHaveLength(waits ? 1 : 2);
    expect(cookies(release([first, second]))).toEqual(waits ? [1] : [2, 1]);
    if (waits) expect(cookies(release([second]))).toEqual([2]);
  });

  test("see what those before them did, and hold up nobody else", () => {
    const before = device.bytes.slice(0, BLOCK);
    const chain = [read(1, 0), write(2, 0, 9), read(3, 0), trim(4, 0, PROMPT)];
    const others = [read(5, PROMPT), { command: nbd.FLUSH, cookie: 6n }];
    expect(cookies(peer.exchange([...chain, ...others]))).toEqual([5]);
    expect(device.names).toEqual(["read 0", "flush"]);
    expect(release([...chain, ...others])).toEqual([
      { cookie: 6n, error: 0, payload: new Uint8Array() },
      { cookie: 1n, error: 0, payload: before },
    ]);
    expect(cookies(release(chain))).toEqual([2]);
    expect(release(chain)).toEqual([{ cookie: 3n, error: 0, payload: new Uint8Array(BLOCK).fill(9) }]);
    expect(device.names).toEqual(["trim 0"]);
    expect(cookies(release(chain))).toEqual([4]);
    expect(device.bytes.subarray(0, BLOCK)).toEqual(new Uint8Array(BLOCK));
  });

  test("go in order across the connections of one device", () => {
    using other = new Peer(device, { service: peer.service });
    expect(peer.exchange([write(1, 0, 5)])).toEqual([]);
    expect(other.exchange([read(1, 0)])).toEqual([]);
    expect(device.names).toEqual(["write 0"]);
    expect(cookies(release([write(1, 0)]))).toEqual([1]);
    device.letGo("read 0");
    expect(replies([read(1, 0)], other)[0]?.payload).toEqual(new Uint8Array(BLOCK).fill(5));
  });
});

test.each([
  ["an ErrnoError", new ErrnoError("ENOSPC"), nbd.ENOSPC],
  ["undefined", undefined, nbd.EIO],
])(
  "a promise rejected with %s is an error and no payload, and the connection goes on",
  (_, reason, error) => {
    const requests = [read(1, 0), write(2, BLOCK), read(3, 2 * BLOCK)];
    peer.exchange(requests);
    device.fail("read 0", reason);
    device.fail("write 4096", reason);
    device.letGo("read 8192");
    expect(replies(requests).map((reply) => [reply.cookie, reply.error, reply.payload.length])).toEqual([
      [1n, error, 0],
      [2n, error, 0],
      [3n, 0, BLOCK],
    ]);
    const statistics = { requests: 3, errors: 2, bytesRead: BLOCK, bytesWritten: 0 };
    expect(peer.connection.statistics).toEqual(statistics);
  },
);

test("memory that the device has stays in place after the connection is closed", async () => {
  const targets: Uint8Array[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const keeper: BlockDevice = {
    size: SIZE,
    read(target) {
      targets.push(target);
      return promise;
    },
  };
  const other = new Peer(keeper);
  other.exchange([read(1, 0)]);
  other[Symbol.dispose]();
  // Accessing freed memory would end the process.
  for (const target of targets) target.fill(1);
  expect(targets.map(({ length }) => length)).toEqual([BLOCK]);
  expect(other.service.pool.usedBytes).toBe(BLOCK);
  resolve();
  await turns(1);
  expect([other.service.pool.usedBytes, other.service.order.size]).toEqual([0, 0]);
});

/** A peer of the device with a short time limit for requests. */
function impatient(queueDepth?: number): Peer {
  return new Peer(device, { requestTimeoutMs: 30, queueDepth });
}

describe("requests that hang", () => {
  test("are reported and answered with EIO; their buffers stay theirs until they settle", async () => {
    using hasty = impatient();
    hasty.send(nbd.encode(read(1, BLOCK)));
    const late = await hasty.replies([read(1, BLOCK)]);
    expect(late).toEqual([{ cookie: 1n, error: nbd.EIO, payload: new Uint8Array() }]);
    expect(hasty.lines).toEqual(["read offset 4096 length 4096 took more than 0.03 s: answered with EIO"]);
    expect(hasty.service.pool.usedBytes).toBe(BLOCK);
    // The next request gets another buffer: what the device does with the first one affects no request.
    hasty.exchange([read(2, 0)]);
    device.letGo("read 4096");
    device.letGo("read 0");
    expect(replies([read(2, 0)], hasty)[0]?.payload).toEqual(device.bytes.slice(0, BLOCK));
    expect([hasty.service.pool.usedBytes, hasty.connection.left]).toEqual([0, 0]);
  });

  test("are no more than the queue depth: then the device gets nothing, until it has answered", async () => {
    using hasty = impatient(4);
    const requests = Array.from({ length: 20 }, (_, index) => read(index, index * BLOCK));
    hasty.send(nbd.encodeAll(requests));
    const errors = (await hasty.replies(requests)).map(({ error }) => error);
    expect(errors).toEqual(requests.map(() => nbd.EIO));
    expect(device.names).toHaveLength(4);
    const HUNG = "the device does not answer 4 requests: all others fail with EIO until it does";
    expect(hasty.lines.filter((line) => line === HUNG)).toHaveLength(1);
    device.letAllGo();
    await turns(1);
    hasty.exchange([read(99, 0)]);
    device.letGo("read 0");
    expect(replies([read(99, 0)], hasty)[0]?.error).toBe(0);
  });

  test("are named after their client, a few at a time, and the others counted", async () => {
    using hasty = new Peer(device, { requestTimeoutMs: 30, name: "client 7" });
    const requests = Array.from({ length: 20 }, (_, index) => read(index, index * BLOCK));
    hasty.send(nbd.encodeAll(requests));
    await hasty.replies(requests);
    expect(hasty.lines).toHaveLength(8);
    expect(hasty.lines[7]).toBe(
      "client 7: read offset 28672 length 4096 took more than 0.03 s: answered with EIO",
    );
    hasty.service.close();
    expect(hasty.lines.slice(8)).toEqual(["12 more requests took too long: answered with EIO"]);
    hasty.service.close();
    expect(hasty.lines).toHaveLength(9);
  });

  test("let a write that waits for one be given up without touching the device", async () => {
    using hasty = impatient();
    const requests = [write(1, 0), write(2, 0)];
    hasty.send(nbd.encodeAll(requests));
    expect((await hasty.replies(requests)).map(({ error }) => error)).toEqual([nbd.EIO, nbd.EIO]);
    device.letGo("write 0");
    await hasty.until("all is given back", () => hasty.connection.left === 0);
    expect([hasty.service.pool.usedBytes, hasty.service.order.size]).toEqual([0, 0]);
    expect(device.names).toEqual([]);
  });

  test("let one that waits for the memory that they have be answered when its time is up", async () => {
    using hasty = new Peer(device, { requestTimeoutMs: 30, poolBytes: 2 * PROMPT });
    const hung = [read(1, 0, PROMPT), read(2, 0, PROMPT)];
    const requests = [...hung, read(3, PROMPT, PROMPT), write(4, PROMPT)];
    hasty.send(nbd.encodeAll(requests));
    const answers = await hasty.replies(requests);
    expect(answers.map(({ cookie, error }) => [cookie, error])).toEqual([
      [1n, nbd.EIO],
      [2n, nbd.EIO],
      [3n, nbd.EIO],
      [4n, nbd.EIO],
    ]);
    expect(hasty.service.pool.isShort).toBe(false);
    device.letAllGo();
    await hasty.until("all is given back", () => hasty.connection.left === 0);
    expect(hasty.service.pool.usedBytes).toBe(0);
  });

  test("are not counted for ever when they are given up after their connection", async () => {
    using hasty = impatient();
    using other = new Peer(device, { service: hasty.service });
    hasty.exchange([read(1, 0)]);
    hasty.connection.close();
    // This one's time is up after that of the first.
    other.send(nbd.encode(read(2, BLOCK)));
    await other.replies([read(2, BLOCK)]);
    expect(hasty.lines).toHaveLength(1);
    device.letGo("read 0");
    await turns(1);
    expect([hasty.connection.left, hasty.connection.hasSettled]).toEqual([0, false]);
  });

  test("hold up no others of their connection, however many follow", () => {
    peer.exchange([read(1, 0)]);
    const length = PROMPT;
    for (let round = 0; round < 200; round += 1) {
      const [reply] = peer.exchange([read(2, PROMPT, length)]);
      expect(reply?.payload.length).toBe(length);
    }
    const [late] = release([read(1, 0)]);
    expect(late?.payload).toEqual(device.bytes.slice(0, BLOCK));
  });
});
