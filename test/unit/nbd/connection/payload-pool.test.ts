/** Memory for payloads: which request gets some and which waits, what is reused, and what is freed. */
import { describe, expect, test } from "bun:test";
import {
  type PayloadBuffer,
  PayloadPool,
  type PoolUser,
} from "../../../../src/nbd/connection/payload-pool.ts";
import { memoryUse } from "../../../support/memory-use.ts";
import { chooseSeed, Random } from "../../../support/random.ts";

const MIB = 2 ** 20;

/** Requests its next buffer again whenever told, as a connection does. */
class User implements PoolUser {
  pooledBytes = 0;
  told = 0;
  readonly has: PayloadBuffer[] = [];

  constructor(
    readonly pool: PayloadPool,
    readonly name = "",
  ) {}

  memoryFreed(): void {
    this.told += 1;
  }

  /** Whether it got that many bytes. */
  takes(length: number): boolean {
    const buffer = this.pool.take(length, this);
    if (buffer !== undefined) this.has.push(buffer);
    return buffer !== undefined;
  }

  gives(count = this.has.length): void {
    for (const buffer of this.has.splice(0, count)) buffer.release();
  }
}

describe("a buffer", () => {
  test.each([
    [1, 4096],
    [4096, 4096],
    [4097, 8192],
    [MIB, MIB],
    [MIB + 512, 2 * MIB],
    [32 * MIB, 32 * MIB],
  ])("of %d bytes has %d, aligned to a page, and can be written at its address", (length, capacity) => {
    const pool = new PayloadPool(64 * MIB);
    const user = new User(pool);
    expect(user.takes(length)).toBe(true);
    const [buffer] = user.has;
    expect([buffer?.capacity, pool.usedBytes, user.pooledBytes]).toEqual([capacity, capacity, capacity]);
    expect((buffer?.address ?? 1) % 4096).toBe(0);
    expect(buffer?.view(length)).toHaveLength(length);
    user.gives();
    expect([pool.usedBytes, user.pooledBytes]).toEqual([0, 0]);
  });

  test("is used again, and given back but once", () => {
    const pool = new PayloadPool(64 * MIB);
    const user = new User(pool);
    user.takes(8192);
    const [first] = user.has;
    user.gives();
    first?.release();
    expect(pool.usedBytes).toBe(0);
    user.takes(5000);
    user.takes(5000);
    expect(user.has.filter((buffer) => buffer === first)).toHaveLength(1);
  });

  test("is nobody else's while it is out", () => {
    const random = new Random(chooseSeed("payload pool"));
    const pool = new PayloadPool(16 * MIB);
    const users = Array.from({ length: 4 }, () => new User(pool));
    for (let step = 0; step < 20_000; step += 1) {
      const user = random.pick(users);
      if (random.oneIn(2)) user.takes(512 * (1 + random.below(random.pick([8, 64, 1024]))));
      else user.gives(random.below(user.has.length + 1));
      if (step % 100 > 0) continue;
      const out = users.flatMap(({ has }) => has).toSorted((one, other) => one.address - other.address);
      let end = 0;
      for (const { address, capacity } of out) {
        expect(address).toBeGreaterThanOrEqual(end);
        end = address + capacity;
      }
      expect(pool.usedBytes).toBe(out.reduce((sum, { capacity }) => sum + capacity, 0));
    }
  });
});

describe("those who share", () => {
  test("one that is alone gets all there is, and 64 MiB at most", () => {
    const [small, large] = [new User(new PayloadPool(32 * MIB)), new User(new PayloadPool(1024 * MIB))];
    while (small.takes(MIB));
    while (large.takes(MIB));
    expect([small.pooledBytes, large.pooledBytes]).toEqual([32 * MIB, 64 * MIB]);
  });

  test("everybody gets 1 MiB, however much is gone; all together 128 MiB more than there is", () => {
    const pool = new PayloadPool(32 * MIB);
    const greedy = new User(pool);
    while (greedy.takes(MIB));
    const users = Array.from({ length: 200 }, () => new User(pool));
    for (const user of users) while (user.takes(256 * 1024));
    expect(pool.usedBytes).toBe((32 + 128) * MIB);
    expect(users.slice(0, 128).every(({ pooledBytes }) => pooledBytes === MIB)).toBe(true);
  });

  test("a second long payload is not for those who would leave others with less than half", () => {
    const pool = new PayloadPool(64 * MIB);
    const [one, other] = [new User(pool), new User(pool)];
    expect([one.takes(16 * MIB), other.takes(16 * MIB)]).toEqual([true, true]);
    expect(one.takes(16 * MIB)).toBe(false);
    expect(new User(pool).takes(32 * MIB)).toBe(true);
  });

  test("those who wait for a first long one are served in turn, before anybody's second", () => {
    const pool = new PayloadPool(32 * MIB);
    const [greedy, first, second] = [new User(pool), new User(pool), new User(pool)];
    greedy.takes(8 * MIB);
    greedy.takes(8 * MIB);
    expect(first.takes(32 * MIB)).toBe(false);
    // There is enough for this one, but it came later.
    expect(second.takes(8 * MIB)).toBe(false);
    expect(pool.isShort).toBe(true);
    greedy.gives(1);
    expect(first.told).toBeGreaterThan(0);
    expect([greedy.takes(8 * MIB), second.takes(8 * MIB)]).toEqual([false, false]);
    expect(first.takes(32 * MIB)).toBe(false);
    greedy.gives();
    expect([second.takes(8 * MIB), first.takes(32 * MIB)]).toEqual([false, true]);
    first.gives();
    expect(second.told).toBeGreaterThan(0);
    expect(second.takes(8 * MIB)).toBe(true);
    pool.forget(greedy);
    expect(pool.isShort).toBe(false);
  });

  test("one that leaves the queue lets the next one go ahead", () => {
    const pool = new PayloadPool(16 * MIB);
    const [has, first, second] = [new User(pool), new User(pool), new User(pool)];
    has.takes(8 * MIB);
    expect([first.takes(16 * MIB), second.takes(8 * MIB)]).toEqual([false, false]);
    pool.forget(first);
    expect(second.told).toBe(1);
    expect(second.takes(8 * MIB)).toBe(true);
  });
});

test("at rest the pages of free buffers are given back, but for 2 MiB; what is out keeps them", () => {
  const pool = new PayloadPool(64 * MIB);
  const user = new User(pool);
  for (let count = 0; count < 40; count += 1) user.takes(MIB);
  for (const buffer of user.has) buffer.view(MIB).fill(1);
  user.gives(30);
  const before = memoryUse().resident;
  pool.rest();
  expect(before - memoryUse().resident).toBeGreaterThan(26 * MIB);
  for (const buffer of user.has) expect(buffer.view(MIB)[MIB - 1]).toBe(1);
  // One that has lost its pages gets new ones.
  user.takes(MIB);
  expect(user.has.at(-1)?.view(MIB).fill(2)[MIB - 1]).toBe(2);
});
