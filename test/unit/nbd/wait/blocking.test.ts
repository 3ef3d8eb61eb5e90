/** Goal: a thread that waits for its members neglects none of them, and does not waste processor time. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { close } from "../../../../src/libc/file.ts";
import { sendBytes, streamSocketPair } from "../../../../src/libc/socket.ts";
import { BlockingWait } from "../../../../src/nbd/wait/blocking.ts";
import { type Awaited, type Member, Members } from "../../../../src/nbd/wait/member.ts";
import { POLLIN } from "../../../../src/uapi/poll.ts";

let members: Members;
let waiting: BlockingWait;
let pairs: (readonly [number, number])[];

beforeEach(() => {
  members = new Members();
  waiting = new BlockingWait(members, 0);
  pairs = [streamSocketPair(), streamSocketPair()];
});
afterEach(() => {
  for (const fd of pairs.flat()) close(fd);
});

/** A member that waits for input on one of the sockets. */
function member(index: number, step: () => unknown, awaited?: Awaited): Member {
  const fd = pairs[index]?.[0] ?? -1;
  const plain = { fd, events: POLLIN, isReady: false, waitsForDevice: false, step };
  return awaited === undefined ? plain : { ...plain, await: () => awaited };
}

function say(index: number): void {
  expect(sendBytes(pairs[index]?.[1] ?? -1, Uint8Array.of(1))).toBe(1);
}

test("one that is always busy does not keep out those who want to join", async () => {
  let busy = 0;
  members.add(member(0, () => (busy += 1), "news"));
  members.add(member(1, () => waiting.stop()));
  say(1);
  expect(await waiting.run()).toBe("stopped");
  expect(busy).toBeGreaterThan(0);
});

test("one that is alone and cannot be waited for by a receive is waited for by a poll", async () => {
  let steps = 0;
  members.add(member(0, () => (steps += 1), "elsewhere"));
  const timer = setTimeout(() => waiting.stop(), 100);
  await waiting.run();
  clearTimeout(timer);
  // A turn each ten milliseconds steps once or twice; one that does not wait, some hundred thousand times.
  expect(steps).toBeLessThan(1000);
});
