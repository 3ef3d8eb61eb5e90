/** Goal: a payload that is lent stays where it is, and the area is used up by nothing else. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Memory } from "../../src/libc/memory.ts";
import { Staging, STAGING_BYTES, StagingBudget } from "../../src/nbd/connection/staging.ts";
import { chooseSeed, Random } from "../support/random.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

let memory: Memory;

beforeEach(() => {
  memory = new Memory(STAGING_BYTES);
});
afterEach(() => memory.close());

/** The position of the next `length` bytes, as a connection gets it; undefined when there is no room now. */
function reserve(staging: Staging, length: number): number | undefined {
  return staging.has(length) || staging.grow(length) ? staging.used : undefined;
}

function lend(staging: Staging, length: number): number | undefined {
  const position = reserve(staging, length);
  if (position !== undefined) staging.lend(position, length);
  return position;
}

describe("payloads that are lent", () => {
  test("keep their places until they are taken back, through thousands of others", () => {
    const random = new Random(chooseSeed("staging"));
    const staging = new Staging(memory, 0, undefined);
    const lent: { position: number; length: number }[] = [];
    let most = 0;
    for (let step = 0; step < 20_000; step += 1) {
      const length = 512 * (1 + random.below(random.pick([8, 64, 1024])));
      const position = reserve(staging, length);
      if (position !== undefined) {
        const end = position + length;
        const hit = lent.find((other) => position < other.position + other.length && other.position < end);
        expect(hit).toBeUndefined();
        expect(position % 4096).toBe(0);
        expect(end).toBeLessThanOrEqual(STAGING_BYTES);
        if (random.oneIn(2)) {
          staging.lend(position, length);
          lent.push({ position, length });
        } else {
          staging.advance(length);
        }
      }
      most = Math.max(most, lent.length);
      // They come back in an order of their own, and all of them now and then.
      const count = random.oneIn(500) ? lent.length : random.below(lent.length > 100 ? 4 : 2);
      for (let back = 0; back < count && lent.length > 0; back += 1) {
        const [one] = lent.splice(random.below(lent.length), 1);
        if (one !== undefined) staging.takeBack(one.position, one.length);
      }
      staging.sent();
      expect(staging.isLent).toBe(lent.length > 0);
    }
    expect(most).toBeGreaterThan(16);
  });

  test("of 4 KiB, 128 at a time and for ever, need no more than a connection keeps", () => {
    const staging = new Staging(memory, 0, new StagingBudget(0));
    const lent: number[] = [];
    for (let step = 0; step < 10_000; step += 1) {
      const position = lend(staging, 4 * KIB);
      expect(position).toBeNumber();
      lent.push(position ?? 0);
      if (lent.length > 128) staging.takeBack(lent.shift() ?? 0, 4 * KIB);
    }
  });

  test("fill all of the area, and then there is no room until one comes back", () => {
    const staging = new Staging(memory, 0, undefined);
    const positions: number[] = [];
    for (let count = 0; count < 32; count += 1) positions.push(lend(staging, MIB) ?? -1);
    expect(positions).toEqual(Array.from({ length: 32 }, (_, index) => index * MIB));
    expect(lend(staging, MIB)).toBeUndefined();
    staging.takeBack(0, MIB);
    expect(lend(staging, MIB)).toBe(0);
    expect(lend(staging, 4 * KIB)).toBeUndefined();
  });

  test("do not keep the longest payload out once all are back", () => {
    const staging = new Staging(memory, 0, undefined);
    const first = lend(staging, 4 * KIB) ?? -1;
    expect(lend(staging, STAGING_BYTES)).toBeUndefined();
    staging.takeBack(first, 4 * KIB);
    staging.sent();
    expect(lend(staging, STAGING_BYTES)).toBe(0);
  });

  test("that begin after what has been sent go on after it", () => {
    const staging = new Staging(memory, 0, undefined);
    staging.advance(64 * KIB);
    // The payload of a write has its place before it is lent, and replies are sent meanwhile.
    const position = staging.used;
    staging.sent();
    staging.lend(position, 4 * KIB);
    expect(reserve(staging, 4 * KIB)).toBe(position + 4 * KIB);
  });
});
