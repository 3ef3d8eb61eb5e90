/** Goal: a waiter is woken, in the event loop or in a poll, in any order of the two. */
import { expect, test } from "bun:test";
import { existsSync, readlinkSync, writeSync } from "node:fs";
import { PollTable } from "../../src/libc/poll.ts";
import { pushWakers, Waker, wakeFound } from "../../src/libc/waker.ts";
import { until } from "../support/shell.ts";

/** Adds to an eventfd, as the kernel does for a completion. */
function signal(waker: Waker): void {
  writeSync(waker.fd, new BigUint64Array([1n]));
}

/** Polls all wakers once. Returns how many were woken. */
function look(milliseconds: number): number {
  const table = new PollTable(8);
  table.push(-1, 0);
  pushWakers(table);
  table.wait(milliseconds);
  return wakeFound(table, 1);
}

test("the event loop and a poll take turns, and nothing is lost between them", async () => {
  let woken = 0;
  const waker = new Waker(() => {
    woken += 1;
  });
  for (let round = 0; round < 100; round += 1) {
    woken = 0;
    signal(waker);
    signal(waker);
    if (round % 3 > 0) {
      expect([look(0), woken]).toEqual([1, 1]);
      // It has been taken: the next look finds nothing.
      expect([look(0), woken]).toEqual([0, 1]);
    }
    if (round % 3 !== 1) {
      signal(waker);
      const before = woken;
      await until("the event loop is woken", () => woken > before);
    }
  }
  await waker.close();
});

test("those that are signalled are woken, and no others", async () => {
  const woken: number[] = [];
  const wakers = [0, 1, 2].map((number) => new Waker(() => woken.push(number)));
  for (const number of [2, 0]) {
    const waker = wakers[number];
    if (waker !== undefined) signal(waker);
  }
  expect(look(1000)).toBe(2);
  expect(woken).toEqual([0, 2]);
  expect(look(0)).toBe(0);
  for (const waker of wakers) await waker.close();
  expect(look(0)).toBe(0);
});

test("a table that is full leaves the others to the event loop", async () => {
  const wakers = [0, 1].map(() => new Waker(() => undefined));
  const table = new PollTable(1);
  pushWakers(table);
  expect(table.count).toBe(1);
  for (const waker of wakers) await waker.close();
});

test("one that is closed leaves no file descriptor", async () => {
  for (let round = 0; round < 10; round += 1) {
    const waker = new Waker(() => undefined);
    const link = `/proc/self/fd/${waker.fd}`;
    expect(readlinkSync(link)).toBe("anon_inode:[eventfd]");
    signal(waker);
    await waker.close();
    expect(existsSync(link)).toBe(false);
  }
});
