/** Goal: running a queue leaves the event loop its share, loses no request, and ends with the device. */
import { expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { addTo } from "../../../src/libc/eventfd.ts";
import { HaltPoll } from "../../../src/serving/halt-poll.ts";
import { QueueRunner } from "../../../src/ublk/queue/runner.ts";
import { UBLK_IO_OP_READ } from "../../../src/uapi/ublk_cmd.ts";
import { until } from "../../support/shell.ts";
import { useServedQueues } from "../../support/served-queue.ts";
import { type FakeRing, UblkDriver } from "../../support/ublk-driver.ts";

const open = await useServedQueues();

const DEPTH = 128;
const READ = { operation: UBLK_IO_OP_READ, length: 512 };

/** A queue of the device with a read for each tag. */
function serve(driver: UblkDriver, device: BlockDevice, wishMs = 0): QueueRunner {
  const { queue } = open(device, {}, { depth: DEPTH, driver });
  for (let tag = 0; tag < DEPTH; tag += 1) driver.ask(tag, READ);
  return new QueueRunner(queue, new HaltPoll(wishMs));
}

test("the event loop gets its turn while a device takes its time, time and again", async () => {
  using driver = new UblkDriver(DEPTH);
  let reads = 0;
  const read = (): void => {
    reads += 1;
    Bun.sleepSync(1);
  };
  const running = serve(driver, { size: 2 ** 20, read }).run();
  /** How many had been done when a timer was due. */
  const seen = new Set<number>();
  const timer = setInterval(() => seen.add(reads), 1);
  await until("all reads are answered", () => driver.answers === DEPTH);
  clearInterval(timer);
  // A turn begins five of them or so, and the next one may follow at once.
  const steps = [0, ...seen, DEPTH].toSorted((a, b) => a - b);
  const longest = Math.max(...steps.map((count, index) => count - (steps[index - 1] ?? 0)));
  expect(longest).toBeLessThan(DEPTH / 4);
  driver.stop();
  addTo(driver.ring.eventfd);
  await running;
});

/** Takes its tags back when the last read is answered. */
class EndingDriver extends UblkDriver {
  override take(ring: FakeRing, entry: number): void {
    super.take(ring, entry);
    if (this.answers === DEPTH) this.stop();
  }
}

test.each([
  ["sleeps at once where it is not to ask", 0, true],
  ["does not sleep while it asks", 60_000, false],
])("a thread of its own %s", async (_, wishMs, sleeps) => {
  using driver = new EndingDriver(DEPTH);
  await serve(driver, { size: 2 ** 20, read: () => undefined }, wishMs).runAlone();
  expect(driver.ring.waits > 0).toBe(sleeps);
});

test("a thread of its own answers all there is, and ends with the device", async () => {
  using driver = new EndingDriver(DEPTH);
  let reads = 0;
  const read = (): void => {
    reads += 1;
    if (reads % 10 === 0) Bun.sleepSync(2);
  };
  await serve(driver, { size: 2 ** 20, read }).runAlone();
  expect([reads, driver.answers]).toEqual([DEPTH, DEPTH]);
});

/** Requests the next read once the queue has polled in vain a number of times after the last answer. */
class LateDriver extends UblkDriver {
  asked = 0;
  #inVain = 0;

  override entered(): void {
    if (this.answers < DEPTH + this.asked) return;
    this.#inVain += 1;
    if (this.#inVain < 10 || this.asked === 5) return;
    this.#inVain = 0;
    this.asked += 1;
    this.ask(0, READ);
  }
}

test.each([
  [50, "finds the next request before the event loop does", 5],
  [0, "leaves waiting to the event loop where it is not to ask", 0],
])("beside the event loop, with %d ms to ask, a turn %s", async (wishMs, _, found) => {
  using driver = new LateDriver(DEPTH);
  const running = serve(driver, { size: 2 ** 20, read: () => undefined }, wishMs).run();
  await until("all reads are answered", () => driver.answers >= DEPTH);
  // No eventfd is added to: only who asks gets more.
  await until("those are answered that are found", () => driver.answers >= DEPTH + found);
  expect(driver.asked).toBe(found);
  driver.stop();
  addTo(driver.ring.eventfd);
  await running;
});
