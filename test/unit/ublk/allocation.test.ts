/**
 * A queue allocates nothing per request: a million requests go through it, and the number of objects on the heap is the
 * same before and after, with no collection in between. The driver is a stand-in that does not allocate either.
 */
import { expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { makeCounters, REQUESTS as ANSWERED } from "../../../src/ublk/queue/statistics.ts";
import {
  UBLK_IO_F_FUA,
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
} from "../../../src/uapi/ublk_cmd.ts";
import { type Allocations, countAllocations } from "../../support/allocation.ts";
import { Plain, RamdiskWithFlush, Wasteful } from "../../support/frugal-devices.ts";
import { pattern } from "../../support/random.ts";
import { type Asked, UblkDriver, useFakeRings } from "../../support/ublk-driver.ts";

await useFakeRings();
const { Queue } = await import("../../../src/ublk/queue/queue.ts");

const SIZE = 2 ** 20;
const BLOCK = 4096;
const DEPTH = 64;
const REQUESTS = 1_000_000;
const WARM_UP = 300_000;
/** What the engine makes for itself meanwhile: code blocks, structures. An object per request would be a million. */
const OBJECTS_MAX = 2000;
const TIMEOUT_MS = 60_000;

/** What a tag asks for, again and again: writes and reads in turn, a flush and a trim among them. */
function requestOf(tag: number): Asked {
  const offset = BLOCK * ((tag * 37) % (SIZE / BLOCK));
  if (tag === 10) return { operation: UBLK_IO_OP_FLUSH };
  if (tag === 20) return { operation: UBLK_IO_OP_DISCARD, offset, length: BLOCK };
  if (tag % 2 === 0) return { operation: UBLK_IO_OP_READ, offset, length: BLOCK };
  return {
    operation: UBLK_IO_OP_WRITE,
    flags: tag % 4 === 1 ? UBLK_IO_F_FUA : 0,
    offset,
    data: pattern(BLOCK),
  };
}

/** What a million requests allocate. */
async function measure(device: BlockDevice): Promise<Allocations> {
  using driver = new UblkDriver(DEPTH);
  const counters = makeCounters();
  const place = { fd: driver.fd, index: 0, depth: DEPTH, requestBytes: 65_536, needGetData: false };
  const queue = new Queue(place, new Dispatch(device), counters);
  // One turn begins them all, unless it is kept waiting, and the next one submits the answers.
  const answer = (): void => {
    do if (!queue.turn(true)) throw new Error("the queue has ended");
    while (queue.hasRequests || queue.hasAnswers);
  };
  const serve = (count: number): void => {
    for (let done = 0; done < count; done += DEPTH) {
      for (let tag = 0; tag < DEPTH; tag += 1) driver.askAgain(tag);
      answer();
    }
  };
  try {
    for (let tag = 0; tag < DEPTH; tag += 1) driver.ask(tag, requestOf(tag));
    answer();
    serve(WARM_UP);
    const allocations = await countAllocations(() => serve(REQUESTS));
    expect(driver.answers).toBeGreaterThanOrEqual(WARM_UP + REQUESTS);
    expect(counters[ANSWERED]).toBe(driver.answers);
    return allocations;
  } finally {
    queue.close();
    device.close?.();
  }
}

test.each<[string, () => BlockDevice]>([
  ["plain", () => new Plain(SIZE)],
  ["memory", () => new RamdiskWithFlush(SIZE)],
])(
  "a million requests to a %s device leave the heap as it was",
  async (_, make) => {
    const { objects, types, collected } = await measure(make());
    expect(collected).toBe(false);
    if (objects > OBJECTS_MAX) expect(types).toBe("no objects");
    expect(objects).toBeLessThan(OBJECTS_MAX);
  },
  TIMEOUT_MS,
);

test(
  "the measure sees a device that allocates one object per read",
  async () => {
    const { objects, collected } = await measure(new Wasteful(SIZE));
    expect(collected || objects > REQUESTS / 4).toBe(true);
  },
  TIMEOUT_MS,
);
