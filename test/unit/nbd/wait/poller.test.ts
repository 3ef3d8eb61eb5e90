/** Goal: each socket with news is reported once, whether the kernel or a thread waits for the sockets. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { close } from "../../../../src/libc/file.ts";
import { receiveBytes, sendBytes, streamSocketPair } from "../../../../src/libc/socket.ts";
import type { Poller } from "../../../../src/nbd/wait/poller.ts";
import { RingPoller } from "../../../../src/nbd/wait/ring-poller.ts";
import { ThreadPoller } from "../../../../src/nbd/wait/thread-poller.ts";
import { POLLIN, POLLOUT } from "../../../../src/uapi/poll.ts";
import { turns } from "../../../support/async-devices.ts";
import { redirectWorkers } from "../../../support/redirect-workers.ts";
import { RunningServer } from "../../../support/running-server.ts";
import { Shadow } from "../../../support/shadow.ts";
import { until } from "../../../support/shell.ts";

type Make = (onNews: () => void) => Poller | Promise<Poller>;

function say(fd: number): void {
  expect(sendBytes(fd, Uint8Array.of(1))).toBe(1);
}

describe.each<[string, Make]>([
  ["a ring", (onNews) => new RingPoller(onNews)],
  ["a thread", (onNews) => ThreadPoller.start(onNews)],
])("%s", (_name, make) => {
  let poller: Poller;
  let calls: number;
  let files: number;
  let pairs: [number, number][];
  let taken: number[];

  beforeEach(async () => {
    files = readdirSync("/proc/self/fd").length;
    [calls, pairs, taken] = [0, [], []];
    poller = await make(() => {
      calls += 1;
    });
  });
  afterEach(async () => {
    await poller.close();
    for (const fd of pairs.flat()) close(fd);
    await until("nothing is left", () => readdirSync("/proc/self/fd").length <= files);
  });

  function pair(): [number, number] {
    const made: [number, number] = [...streamSocketPair()];
    pairs.push(made);
    return made;
  }

  /** All keys taken since the last call, once there are `count`. */
  async function news(count: number): Promise<number[]> {
    await until(`${count} news`, () => {
      poller.submit();
      for (let key = poller.take(); key >= 0; key = poller.take()) taken.push(key);
      return taken.length >= count;
    });
    return taken.splice(0).toSorted((one, other) => one - other);
  }

  /** Checks that none has news: a socket that is watched after them, and has news, is the only one reported. */
  async function expectNone(): Promise<void> {
    const [ours, theirs] = pair();
    say(theirs);
    poller.watch(2 ** 29, ours, POLLIN);
    expect(await news(1)).toEqual([2 ** 29]);
  }

  test("wakes the event loop by itself, and tells each watch once", async () => {
    const [ours, theirs] = pair();
    poller.watch(7, ours, POLLIN);
    poller.submit();
    await turns(3);
    expect([calls, poller.take()]).toEqual([0, -1]);
    say(theirs);
    await until("it is told", () => calls === 1);
    expect(await news(1)).toEqual([7]);
    say(theirs);
    await expectNone();
    // Input that arrived before the watch counts as news.
    poller.watch(7, ours, POLLIN);
    expect(await news(1)).toEqual([7]);
  });

  test("watches a socket for input and for output", async () => {
    const [ours, theirs] = pair();
    while (sendBytes(ours, new Uint8Array(65_536)) > 0);
    poller.watch(2, ours, POLLIN);
    poller.watch(3, ours, POLLOUT);
    await expectNone();
    while (receiveBytes(theirs, new Uint8Array(65_536)) > 0);
    expect(await news(1)).toEqual([3]);
    say(theirs);
    expect(await news(1)).toEqual([2]);
  });

  test("tells that a peer is gone", async () => {
    const [ours, theirs] = streamSocketPair();
    poller.watch(1, ours, POLLIN);
    poller.submit();
    close(theirs);
    expect(await news(1)).toEqual([1]);
    close(ours);
  });

  test("forgets: the socket is closed with its last descriptor", async () => {
    const [ours, theirs] = streamSocketPair();
    poller.watch(5, ours, POLLIN);
    poller.submit();
    await turns(1);
    poller.forget(5);
    close(ours);
    await until("the peer reads the end", () => receiveBytes(theirs, new Uint8Array(1)) === 0);
    close(theirs);
  });

  test("tells nothing of a silent socket that is watched after another was forgotten", async () => {
    const [forgotten] = pair();
    const [silent] = pair();
    poller.watch(2, forgotten, POLLIN);
    poller.submit();
    poller.forget(2);
    // Reports of a forgotten one do not matter.
    await turns(2);
    for (let key = poller.take(); key >= 0; key = poller.take()) expect(key).toBe(2);
    poller.watch(4, silent, POLLIN);
    await expectNone();
  });

  test("watches more than a ring has entries, and all may have news at once", async () => {
    const all = Array.from({ length: 300 }, () => pair());
    for (const [index, [ours]] of all.entries()) poller.watch(2 * index, ours, POLLIN);
    poller.submit();
    for (const [, theirs] of all) say(theirs);
    expect(await news(300)).toEqual(all.map((_, index) => 2 * index));
    for (const [index, [ours]] of all.entries()) poller.watch(2 * index, ours, POLLIN);
    for (const index of all.keys()) if (index % 2 === 0) poller.forget(2 * index);
    await until("the others are told", async () => {
      // News from before it was forgotten may still be reported.
      taken.push(...(await news(0)));
      return all.every((_, index) => index % 2 === 0 || taken.includes(2 * index));
    });
  });
});

test("a thread that dies is no silence: the server fails", async () => {
  using _ = redirectWorkers("poll", "dying");
  const running = await RunningServer.start("by a thread", new Shadow(4096));
  await expect(running.ended).rejects.toThrow("poll worker: ");
});
