/** Goal: a message of a queue's thread counts as the answer to the last order. */
import { expect, test } from "bun:test";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { makeCounters } from "../../../src/queues/counters.ts";
import { QueueThread } from "../../../src/queues/thread.ts";
import { redirectWorkers } from "../../support/redirect-workers.ts";

test("a pause that was taken back does not end the wait for the next one", async () => {
  using _ = redirectWorkers("queue", "pausing-queue");
  const disk = new Ramdisk(2 ** 20);
  const rested = Promise.withResolvers<void>();

  const thread = new QueueThread({ log: () => rested.resolve() });
  const serving = { requestTimeoutMs: undefined, busyPollMs: undefined, counters: makeCounters() };
  await thread.prepare(undefined, new Dispatch(disk), serving);
  await thread.handOver(-1);
  void thread.ended();
  void thread.pause();
  thread.tell("watch");
  thread.tell("resume");
  const hasPaused: string[] = [];
  const second = thread.pause().then(() => hasPaused.push("second"));
  thread.tell("rest");
  await rested.promise;
  expect(hasPaused).toEqual([]);
  thread.tell("watch");
  await second;
  await thread.end();
  disk.close();
});
