/** Goal: a tight connection goes on while the device takes its time, in an order that nobody can tell from another. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { ErrnoError } from "../../src/errors.ts";
import * as nbd from "../support/golden.ts";
import { Peer } from "../support/peer.ts";
import { pattern } from "../support/random.ts";

const SIZE = 2 ** 20;
/** From here on a read is answered at once. */
const CACHED = SIZE / 2;
const BLOCK = 4096;

/** Keeps every call until it is told to let it go, but for reads of its second half. */
class HeldDevice implements BlockDevice {
  readonly size = SIZE;
  readonly bytes = pattern(SIZE);
  /** What it was asked for and has not done. */
  readonly held: { readonly name: string; readonly letGo: (failure?: ErrnoError) => void }[] = [];

  read(target: Uint8Array, offset: number): void | Promise<void> {
    const work = (): void => target.set(this.bytes.subarray(offset, offset + target.length));
    return offset >= CACHED ? work() : this.#hold(`read ${offset}`, work);
  }

  write(source: Uint8Array, offset: number): Promise<void> {
    return this.#hold(`write ${offset}`, () => this.bytes.set(source, offset));
  }

  flush(): Promise<void> {
    return this.#hold("flush", () => undefined);
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#hold(`trim ${offset}`, () => this.bytes.fill(0, offset, offset + length));
  }

  get names(): string[] {
    return this.held.map(({ name }) => name);
  }

  /** Does what it has, the last first. */
  releaseAll(): void {
    for (const { letGo } of this.held.splice(0).toReversed()) letGo();
  }

  #hold(name: string, work: () => unknown): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const letGo = (failure?: ErrnoError): void => {
      if (failure !== undefined) return reject(failure);
      work();
      resolve();
    };
    this.held.push({ name, letGo });
    return promise;
  }
}

let device: HeldDevice;
let peer: Peer;

beforeEach(() => {
  device = new HeldDevice();
  peer = new Peer(device);
});
afterEach(() => peer[Symbol.dispose]());

function read(cookie: number, offset: number): nbd.Request {
  return { command: nbd.READ, cookie: BigInt(cookie), offset, length: BLOCK };
}

function write(cookie: number, offset: number, byte: number): nbd.Request {
  const payload = new Uint8Array(BLOCK).fill(byte);
  return { command: nbd.WRITE, cookie: BigInt(cookie), offset, length: BLOCK, payload };
}

function cookies(replies: readonly nbd.Reply[]): number[] {
  return replies.map(({ cookie }) => Number(cookie));
}

/** Lets the device do what it has, and takes the replies to `requests`. */
function release(requests: readonly nbd.Request[]): nbd.Reply[] {
  device.releaseAll();
  peer.run();
  return nbd.decodeReplies(peer.received(), requests);
}

test("what is there at once overtakes what is not, and what comes later is right", () => {
  const requests = [read(1, 0), read(2, CACHED), read(3, BLOCK), read(4, CACHED + BLOCK)];
  expect(cookies(peer.exchange(requests))).toEqual([2, 4]);
  expect(device.names).toEqual(["read 0", "read 4096"]);
  // More of the staging area is used meanwhile.
  for (let round = 0; round < 300; round += 1) peer.exchange([read(5, CACHED + BLOCK * (round % 64))]);
  const late = release(requests);
  expect(cookies(late)).toEqual([3, 1]);
  for (const { cookie, payload } of late) {
    const offset = cookie === 1n ? 0 : BLOCK;
    expect(Buffer.compare(payload, device.bytes.subarray(offset, offset + BLOCK))).toBe(0);
  }
  expect(peer.connection.deferred).toBe(0);
});

describe("requests for the same bytes", () => {
  test("wait for a write, and others do not", () => {
    const requests = [write(1, 0, 7), read(2, BLOCK)];
    expect(peer.exchange(requests)).toEqual([]);
    // The third waits, and with it what the socket still has.
    const later = [read(3, 0), read(4, CACHED)];
    expect(peer.exchange(later)).toEqual([]);
    expect(device.names).toEqual(["write 0", "read 4096"]);
    expect(cookies(release([...requests, ...later]))).toEqual([2, 1, 4]);
    const [reply] = release(later);
    expect(reply).toEqual({ cookie: 3n, error: 0, payload: new Uint8Array(BLOCK).fill(7) });
  });

  test("a write waits for a read, and a trim for both", () => {
    const requests = [
      read(1, 0),
      write(2, 0, 9),
      { command: nbd.TRIM, cookie: 3n, offset: 0, length: SIZE / 2 },
    ];
    const before = device.bytes.slice(0, BLOCK);
    expect(peer.exchange(requests)).toEqual([]);
    expect(device.names).toEqual(["read 0"]);
    const [first] = release(requests);
    expect(first).toEqual({ cookie: 1n, error: 0, payload: before });
    expect(device.names).toEqual(["write 0"]);
    expect(cookies(release(requests))).toEqual([2]);
    expect(device.names).toEqual(["trim 0"]);
    expect(cookies(release(requests))).toEqual([3]);
    expect(device.bytes.subarray(0, BLOCK)).toEqual(new Uint8Array(BLOCK));
  });
});

test("a promise that is rejected is an error and no payload", () => {
  const requests = [read(1, 0), write(2, BLOCK, 1)];
  peer.exchange(requests);
  for (const held of device.held.splice(0)) held.letGo(new ErrnoError("ENOSPC"));
  const replies = release(requests);
  expect(replies.map(({ error }) => error)).toEqual([nbd.ENOSPC, nbd.ENOSPC]);
  expect(peer.connection.statistics).toEqual({ requests: 2, errors: 2, bytesRead: 0, bytesWritten: 0 });
});

test("the device has 128 at a time", () => {
  const requests = Array.from({ length: 128 }, (_, index) => read(index, index * BLOCK));
  const more = Array.from({ length: 40 }, (_, index) => read(128 + index, index * BLOCK));
  peer.exchange([...requests, ...more]);
  expect(device.held.length).toBe(128);
  expect(release([...requests, ...more])).toHaveLength(128);
  expect(device.held.length).toBe(40);
  expect(release(more)).toHaveLength(40);
});

test("after a disconnect what is in flight is still answered", () => {
  const requests = [write(1, 0, 5), { command: nbd.FLUSH, cookie: 2n }];
  expect(peer.exchange([...requests, { command: nbd.DISC, cookie: 3n }])).toEqual([]);
  expect(peer.outcome).toBe("disconnect");
  expect([peer.connection.flush(), peer.connection.deferred]).toEqual([false, 2]);
});

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
  // Memory that is not there any more would end the process.
  for (const target of targets) target.fill(1);
  expect(targets.map(({ length }) => length)).toEqual([BLOCK]);
  resolve();
  await promise;
});
