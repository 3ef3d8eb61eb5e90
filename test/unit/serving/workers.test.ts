/** Goal: a worker that has ended leaves nothing behind, and one that cannot end does not keep its caller waiting. */
import { expect, test } from "bun:test";
import { writeSync } from "node:fs";
import { close } from "../../../src/libc/file.ts";
import { streamSocketPair } from "../../../src/libc/socket.ts";
import { RequestWorker } from "../../../src/serving/workers.ts";
import { ownUse } from "../../support/own-use.ts";
import { redirectWorkers } from "../../support/redirect-workers.ts";
import { until } from "../../support/shell.ts";

const WORKERS = 20;

test("workers that have ended leave neither threads nor file descriptors", async () => {
  const pass = async (): Promise<void> => {
    for (let count = 0; count < WORKERS; count += 1) {
      const worker = new RequestWorker<{ fd: number }, unknown>("doIt");
      await worker.next();
      // It is no node: the ioctl fails at once, with all signals blocked.
      worker.send({ fd: -1 });
      await worker.next();
      await worker.end();
    }
  };
  // The runtime starts helpers of its own with the first ones.
  await pass();
  const before = ownUse();
  await pass();
  expect(ownUse().descriptors).toBe(before.descriptors);
  // A helper may come or go; that of a worker would be there twenty times.
  expect(ownUse().threads).toBeLessThan(before.threads + WORKERS / 2);
});

test("one that is in a system call is let be, and ends when it is back", async () => {
  using _ = redirectWorkers("writeBack", "stuck");
  const [theirs, ours] = streamSocketPair();
  try {
    const worker = new RequestWorker<{ fd: number }, unknown>("writeBack");
    await worker.next();
    const before = ownUse().descriptors;
    worker.send({ fd: theirs });
    expect(await worker.next()).toBe("stuck");
    await worker.end();
    expect(ownUse().descriptors).toBe(before);
    writeSync(ours, "x");
    await until("the thread is gone", () => ownUse().descriptors < before);
  } finally {
    close(theirs);
    close(ours);
  }
});

test("one that has died can be ended", async () => {
  using _ = redirectWorkers("writeBack", "no-such");
  const worker = new RequestWorker<unknown, unknown>("writeBack");
  await expect(worker.next()).rejects.toThrow("writeBack worker: ");
  await worker.end();
});
