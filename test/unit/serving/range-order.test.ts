/** The order of requests that touch the same bytes, against a model that compares each with every earlier one. */
import { describe, expect, test } from "bun:test";
import { OrderPlace, RangeOrder, type Ranged } from "../../../src/serving/range-order.ts";
import { chooseSeed, Random } from "../../support/random.ts";

class Entry implements Ranged {
  readonly kind = 0;
  readonly arrived = 0;
  readonly place = new OrderPlace();
  hasBegun = false;
  isDone = false;
  onProceed: () => void = () => undefined;

  constructor(
    readonly offset: number,
    readonly length: number,
    readonly changes: boolean,
  ) {}

  proceed(): void {
    if (this.hasBegun) throw new Error("it was let go twice");
    this.hasBegun = true;
    this.onProceed();
  }
}

/** Does as a connection does: what is free begins, the rest waits. */
function add(order: RangeOrder, entry: Entry): Entry {
  if (order.isFree(entry)) {
    entry.hasBegun = true;
    order.insert(entry);
  } else {
    order.wait(entry);
  }
  return entry;
}

function finish(order: RangeOrder, entry: Entry): void {
  entry.isDone = true;
  order.remove(entry);
}

function conflict(one: Entry, other: Entry): boolean {
  const overlap = one.offset < other.offset + other.length && other.offset < one.offset + one.length;
  return overlap && one.length > 0 && other.length > 0 && (one.changes || other.changes);
}

/** All requests that may have begun have begun, and no others. */
function expectModel(entries: readonly Entry[]): void {
  for (const [index, entry] of entries.entries()) {
    const isFree = !entries.slice(0, index).some((earlier) => !earlier.isDone && conflict(earlier, entry));
    if (entry.isDone || isFree === entry.hasBegun) continue;
    const { offset, length, changes } = entry;
    expect([offset, length, changes, entry.hasBegun]).toEqual([offset, length, changes, isFree]);
  }
}

/** Every waiter that hangs on one of `entries`. */
function waiters(entries: readonly Entry[]): Ranged[] {
  const found: Ranged[] = [];
  for (const { place } of entries)
    for (let each = place.firstWaiter; each !== undefined; each = each.place.nextWaiter) found.push(each);
  return found;
}

test("at random: nobody begins too early, nobody waits too long, and each waits in one list", () => {
  const random = new Random(chooseSeed("range order"));
  const order = new RangeOrder();
  let entries: Entry[] = [];
  let waited = 0;
  for (let step = 0; step < 20_000; step += 1) {
    const running = entries.filter(({ hasBegun, isDone }) => hasBegun && !isDone);
    if (entries.length < 40 && random.oneIn(2)) {
      const blocks = random.oneIn(8) ? 64 : random.below(4);
      entries.push(add(order, new Entry(512 * random.below(64), 512 * blocks, random.oneIn(2))));
      if (entries.at(-1)?.hasBegun === false) waited += 1;
    } else if (running.length > 0) {
      finish(order, random.pick(running));
    }
    entries = entries.filter(({ isDone }) => !isDone);
    expectModel(entries);
    const hanging = waiters(entries);
    expect(hanging).toHaveLength(entries.filter(({ hasBegun }) => !hasBegun).length);
    expect(new Set(hanging).size).toBe(hanging.length);
    expect(order.size).toBe(entries.length);
  }
  expect(waited).toBeGreaterThan(1000);
});

describe("a chain of 10,000", () => {
  const COUNT = 10_000;

  test("in which each is done as soon as it begins costs no stack", () => {
    const order = new RangeOrder();
    const first = add(order, new Entry(0, 512, true));
    const begun: number[] = [];
    for (let index = 0; index < COUNT; index += 1) {
      const entry = new Entry(0, 512, true);
      entry.onProceed = () => {
        begun.push(index);
        finish(order, entry);
      };
      add(order, entry);
    }
    expect(begun).toEqual([]);
    finish(order, first);
    expect(begun).toEqual(Array.from({ length: COUNT }, (_, index) => index));
    expect(order.size).toBe(0);
  });

  test("is a chain: each hangs on the one before it alone", () => {
    const order = new RangeOrder();
    const entries = Array.from({ length: COUNT }, () => add(order, new Entry(0, 512, true)));
    for (const [index, { place }] of entries.entries()) {
      expect(place.firstWaiter === entries[index + 1] && place.firstWaiter === place.lastWaiter).toBe(true);
    }
    for (const entry of entries) finish(order, entry);
    expect(entries.every(({ hasBegun, place }) => hasBegun && place.older === undefined)).toBe(true);
  });
});

test("reads that wait for one write all begin with its end, by age", () => {
  const order = new RangeOrder();
  const write = add(order, new Entry(0, 4096, true));
  const begun: number[] = [];
  const reads = Array.from({ length: 8 }, (_, index) => new Entry(512 * index, 512, false));
  for (const read of reads) read.onProceed = () => begun.push(read.offset);
  for (const read of reads) add(order, read);
  finish(order, write);
  expect(begun).toEqual(reads.map(({ offset }) => offset));
});

test("is full with as many as all clients may have", () => {
  const order = new RangeOrder();
  const entries = Array.from({ length: 128 * 128 }, (_, index) => new Entry(512 * index, 512, false));
  for (const entry of entries) {
    expect(order.isFull).toBe(false);
    order.insert(entry);
  }
  expect(order.isFull).toBe(true);
  for (const entry of entries) order.remove(entry);
  expect([order.isFull, order.size]).toEqual([false, 0]);
});
