/** The event pump: what is answered, in which order the device sees it, and what happens to those who do not answer. */
import { describe, expect, test } from "bun:test";
import { ErrnoError } from "../../src/errors.ts";
import { AsyncStore } from "../support/async-devices.ts";
import { EventPeer } from "../support/event-peer.ts";
import * as nbd from "../support/golden.ts";
import { Model, RequestSource } from "../support/model.ts";
import { pattern, Random } from "../support/random.ts";
import { Shadow } from "../support/shadow.ts";
import { until } from "../support/shell.ts";

const SIZE = 1024 * 1024;
const MIB = 2 ** 20;

/** Gates by offset: a request waits at its gate until the test opens it. */
class Gates {
  readonly begun: number[] = [];
  readonly #gates = new Map<number, PromiseWithResolvers<void>>();

  constructor(device: AsyncStore) {
    device.hold = (offset) => {
      this.begun.push(offset);
      const gate = Promise.withResolvers<void>();
      this.#gates.set(offset, gate);
      return gate.promise;
    };
  }

  open(offset: number): void {
    this.#gates.get(offset)?.resolve();
  }

  fail(offset: number, error: unknown): void {
    this.#gates.get(offset)?.reject(error);
  }
}

const read = (cookie: bigint, offset: number, length = 512): nbd.Request => ({
  command: nbd.READ,
  cookie,
  offset,
  length,
});
const write = (cookie: bigint, offset: number, payload: Uint8Array): nbd.Request => ({
  command: nbd.WRITE,
  cookie,
  offset,
  payload,
});

/** Lets everything happen that needs no more than turns of the event loop. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}

describe("the stream", () => {
  test("byte by byte, the requests and replies are the same as at once", async () => {
    const device = new AsyncStore(SIZE);
    const peer = new EventPeer(device);
    const payload = pattern(1024, 2);
    const requests = [write(1n, 512, payload), read(2n, 512, 1024), { command: nbd.FLUSH, cookie: 3n }];
    for (const byte of nbd.encodeAll(requests)) peer.send(Uint8Array.of(byte));
    const replies = await peer.replies(requests);
    expect(replies.map((reply) => [reply.cookie, reply.error])).toEqual([
      [1n, 0],
      [3n, 0],
      [2n, 0],
    ]);
    expect(replies.find((reply) => reply.cookie === 2n)?.payload).toEqual(payload);
    expect(peer.connection.statistics).toEqual({
      requests: 3,
      errors: 0,
      bytesRead: 1024,
      bytesWritten: 1024,
    });
  });

  test("all that settles in one turn is written at once", async () => {
    const peer = new EventPeer(new AsyncStore(SIZE));
    const requests = Array.from({ length: 32 }, (_, index) => read(BigInt(index), index * 512));
    peer.sendAll(requests);
    await peer.replies(requests);
    expect(peer.writes).toBe(1);
  });

  test("random requests in random pieces over random delays agree with the model", async () => {
    const random = new Random(7);
    const device = new AsyncStore(64 * 1024);
    device.hold = () => (random.oneIn(3) ? Bun.sleep(random.below(2)) : undefined);
    const peer = new EventPeer(device);
    const model = new Model(device.size);
    const source = new RequestSource(random, device.size, 8192);
    for (let round = 0; round < 50; round += 1) {
      const requests = Array.from({ length: 40 }, () => source.next());
      // Whatever overlaps is done in the order in which it was sent: the model's.
      const expected = new Map(requests.map((request) => [request.cookie, model.apply(request)]));
      const bytes = nbd.encodeAll(requests);
      for (let at = 0; at < bytes.length;) {
        const end = at + 1 + random.below(3000);
        peer.send(bytes.slice(at, end));
        at = end;
        if (random.oneIn(4)) await settle();
      }
      for (const reply of await peer.replies(requests)) {
        const { cookie, error, payload } = reply;
        expect(expected.get(cookie), `cookie ${cookie}`).toEqual({ error, payload });
      }
      expect(device.bytes).toEqual(model.bytes);
    }
    expect(device.inFlightMax).toBeGreaterThan(4);
  });

  test("a magic number that is none breaks the connection; what came before is answered", async () => {
    const device = new AsyncStore(SIZE);
    const gates = new Gates(device);
    const peer = new EventPeer(device);
    peer.send(nbd.concatenate([nbd.encode(read(1n, 0)), new Uint8Array(28)]));
    gates.open(0);
    const { ending, left } = await peer.connection.outcome(5000);
    expect([ending, left]).toEqual(["broken", 0]);
    expect(peer.connection.fault).toContain("0x0,");
    expect(await peer.replies([read(1n, 0)])).toHaveLength(1);
    expect(peer.isEnded).toBe(true);
  });
});

describe("order", () => {
  const data = pattern(4096, 3);
  const CASES: readonly (readonly [string, nbd.Request, nbd.Request, boolean])[] = [
    ["a read after a write of the same block", write(1n, 0, data), read(2n, 0), true],
    ["a write after a read that it overlaps by a block", read(1n, 0, 4096), write(2n, 3584, data), true],
    [
      "a trim after a write",
      write(1n, 4096, data),
      { command: nbd.TRIM, cookie: 2n, offset: 0, length: 8192 },
      true,
    ],
    [
      "zeroes after a write",
      write(1n, 0, data),
      { command: nbd.WRITE_ZEROES, cookie: 2n, length: 512 },
      true,
    ],
    ["a write after a trim", { command: nbd.TRIM, cookie: 1n, length: 4096 }, write(2n, 0, data), true],
    ["a read beside a read", read(1n, 0, 4096), read(2n, 512), false],
    ["a write next to a write", write(1n, 0, data), write(2n, 4096, data), false],
    ["a read next to a write", write(1n, 4096, data), read(2n, 0, 4096), false],
    ["a flush beside a write", write(1n, 0, data), { command: nbd.FLUSH, cookie: 2n }, false],
  ];
  test.each(CASES)("%s", async (_, first, second, waits) => {
    const device = new AsyncStore(SIZE);
    let begun = 0;
    const gate = Promise.withResolvers<void>();
    device.hold = () => {
      begun += 1;
      return begun === 1 ? gate.promise : undefined;
    };
    const peer = new EventPeer(device);
    peer.sendAll([first, second]);
    await settle();
    expect(begun).toBe(waits ? 1 : 2);
    gate.resolve();
    const replies = await peer.replies([first, second]);
    expect(replies.map((reply) => reply.cookie)).toEqual(waits ? [1n, 2n] : [2n, 1n]);
  });

  test("a long chain over one block goes in order, and costs no stack", async () => {
    const device = new AsyncStore(SIZE);
    const gate = Promise.withResolvers<void>();
    let first = true;
    device.hold = () => {
      const hold = first ? gate.promise : undefined;
      first = false;
      return hold;
    };
    const peer = new EventPeer(device, { queueDepth: 2000 });
    const requests = Array.from({ length: 2000 }, (_, index) =>
      write(BigInt(index), 0, new Uint8Array(512).fill(index % 251)),
    );
    peer.sendAll(requests);
    await settle();
    gate.resolve();
    const replies = await peer.replies(requests);
    expect(replies.map((reply) => reply.cookie)).toEqual(requests.map((request) => request.cookie));
    expect(device.bytes[0]).toBe(1999 % 251);
  });

  test("it holds across the connections of one device", async () => {
    const device = new AsyncStore(SIZE);
    const gates = new Gates(device);
    const one = new EventPeer(device);
    const other = new EventPeer(device, { service: one.service });
    one.sendAll([write(1n, 0, data)]);
    other.sendAll([read(1n, 0)]);
    await settle();
    expect(gates.begun).toEqual([0]);
    gates.open(0);
    await one.replies([write(1n, 0, data)]);
    gates.open(0);
    expect((await other.replies([read(1n, 0)]))[0]?.payload).toEqual(data.slice(0, 512));
  });
});

describe("errors", () => {
  test.each([
    ["an ErrnoError", new ErrnoError("ENOSPC"), nbd.ENOSPC],
    ["an Error", new Error("broken"), nbd.EIO],
    ["null", null, nbd.EIO],
    ["undefined", undefined, nbd.EIO],
  ])("a promise rejected with %s is an errno, and the connection goes on", async (_, error, expected) => {
    const device = new AsyncStore(SIZE);
    const gates = new Gates(device);
    const peer = new EventPeer(device);
    peer.sendAll([read(1n, 0), read(2n, 512)]);
    gates.fail(0, error);
    gates.open(512);
    const replies = await peer.replies([read(1n, 0), read(2n, 512)]);
    expect(replies.map((reply) => [reply.cookie, reply.error]).toSorted()).toEqual([
      [1n, expected],
      [2n, 0],
    ]);
    expect(peer.connection.statistics.errors).toBe(1);
  });

  test.each([
    ["a range beyond the end", { ...read(1n, SIZE), length: 512 }, nbd.EINVAL],
    ["a write beyond the end", write(1n, SIZE, new Uint8Array(512)), nbd.ENOSPC],
    ["a write of nothing", write(1n, 0, new Uint8Array()), nbd.EINVAL],
    ["an unknown command", { command: 9, cookie: 1n, length: 512 }, nbd.EINVAL],
    ["a flag that is unknown", { ...read(1n, 0), flags: 1 << 5 }, nbd.EINVAL],
    ["DF where replies are simple", { ...read(1n, 0), flags: 1 << 2 }, nbd.EINVAL],
    ["block status where it was not agreed on", { command: 7, cookie: 1n, length: 512 }, nbd.EINVAL],
    ["33 MiB to read", { ...read(1n, 0), length: 33 * MIB }, nbd.EINVAL],
    ["33 MiB to write", write(1n, 0, new Uint8Array(33 * MIB)), nbd.EINVAL],
  ])("%s", async (_, bad, error) => {
    const device = new Shadow(SIZE);
    const peer = new EventPeer(device);
    const replies = await peer.exchange(bad, read(2n, 0));
    expect(replies.map((reply) => reply.error)).toEqual([error, 0]);
    expect(device.calls).toEqual(["read 0+512"]);
  });

  test("a read-only device refuses a write and takes its payload off the stream", async () => {
    const device = new Shadow(SIZE);
    const peer = new EventPeer(device, { readOnly: true });
    const replies = await peer.exchange(write(1n, 0, pattern(70_000 - (70_000 % 512))), read(2n, 0));
    expect(replies.map((reply) => reply.error)).toEqual([nbd.EPERM, 0]);
    expect(device.calls).toEqual(["read 0+512"]);
  });
});

describe("requests that never settle", () => {
  test("are reported and answered with EIO; their buffers stay theirs until they settle", async () => {
    const device = new AsyncStore(SIZE);
    const lent: Uint8Array[] = [];
    const gates = new Gates(device);
    const plain = device.read.bind(device);
    device.read = (target, offset) => {
      lent.push(target);
      return plain(target, offset);
    };
    const peer = new EventPeer(device, { requestTimeoutMs: 40 });
    const late = read(1n, 4096);
    peer.sendAll([late]);
    expect(await peer.replies([late])).toEqual([{ cookie: 1n, error: nbd.EIO, payload: new Uint8Array() }]);
    expect(peer.lines).toEqual(["read offset 4096 length 512 took more than 0.04 s: answered with EIO"]);
    expect(peer.service.pool.usedBytes).toBe(4096);

    peer.sendAll([read(2n, 0)]);
    await settle();
    expect(lent).toHaveLength(2);
    expect(lent[0]?.buffer).not.toBe(lent[1]?.buffer);
    gates.open(0);
    gates.open(4096);
    await peer.replies([read(2n, 0)]);
    await until("both buffers are back", () => peer.service.pool.usedBytes === 0);
    expect(peer.received()).toHaveLength(0);
  });

  test("a device that answers nothing gets no more than the queue depth; the rest fails at once", async () => {
    const device = new AsyncStore(SIZE);
    const gates = new Gates(device);
    const peer = new EventPeer(device, { requestTimeoutMs: 30, queueDepth: 4 });
    const requests = Array.from({ length: 20 }, (_, index) => read(BigInt(index), index * 512));
    peer.sendAll(requests);
    const replies = await peer.replies(requests);
    expect(new Set(replies.map((reply) => reply.error))).toEqual(new Set([nbd.EIO]));
    expect(gates.begun).toHaveLength(4);
    for (const offset of gates.begun) gates.open(offset);
    await settle();
    peer.sendAll([read(99n, 0)]);
    await settle();
    gates.open(0);
    expect((await peer.replies([read(99n, 0)]))[0]?.error).toBe(0);
  });

  test("a write that waits for one is given up without touching the device", async () => {
    const device = new AsyncStore(SIZE);
    const gates = new Gates(device);
    const peer = new EventPeer(device, { requestTimeoutMs: 30 });
    const requests = [write(1n, 0, pattern(512)), write(2n, 0, pattern(512, 2))];
    peer.sendAll(requests);
    expect((await peer.replies(requests)).map((reply) => reply.error)).toEqual([nbd.EIO, nbd.EIO]);
    gates.open(0);
    await until(
      "all is given back",
      () => peer.service.pool.usedBytes === 0 && peer.service.order.size === 0,
    );
    expect(gates.begun).toEqual([0]);
  });
});
