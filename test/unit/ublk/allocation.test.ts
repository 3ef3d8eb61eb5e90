/** A queue allocates nothing per request. The driver is a stand-in that does not allocate either. */
import { expect } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { REQUESTS as ANSWERED } from "../../../src/queues/counters.ts";
import { makeTraceRing, TraceReader } from "../../../src/queues/trace-ring.ts";
import {
  UBLK_IO_F_FUA,
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
} from "../../../src/uapi/ublk_cmd.ts";
import { describeAllocations, DEVICE_BYTES, type RequestLoop } from "../../support/allocation.ts";
import { pattern } from "../../support/random.ts";
import { useServedQueues } from "../../support/served-queue.ts";
import type { Asked } from "../../support/ublk-driver.ts";

const open = await useServedQueues();

const BLOCK = 4096;
const DEPTH = 64;

/** What a tag asks for, again and again: writes and reads in turn, a flush and a trim among them. */
function requestOf(tag: number): Asked {
  const offset = BLOCK * ((tag * 37) % (DEVICE_BYTES / BLOCK));
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

function openQueue(device: BlockDevice, traceRing?: SharedArrayBuffer): RequestLoop {
  const served = open(device, {}, { depth: DEPTH, traceRing });
  const { counters, driver, queue } = served;
  // One turn begins them all, unless it is kept waiting, and the next one submits the answers.
  const answer = (): void => {
    do if (!queue.turn(true)) throw new Error("the queue has ended");
    while (queue.hasRequests || queue.hasAnswers);
  };
  for (let tag = 0; tag < DEPTH; tag += 1) driver.ask(tag, requestOf(tag));
  answer();
  return {
    answered: () => Math.min(driver.answers, counters[ANSWERED] ?? 0),
    serve(count) {
      for (let done = 0; done < count; done += DEPTH) {
        for (let tag = 0; tag < DEPTH; tag += 1) driver.askAgain(tag);
        answer();
      }
    },
    close: () => served[Symbol.dispose](),
  };
}

describeAllocations("a queue", (device) => openQueue(device));

describeAllocations("a queue that is traced, with the bytes of writes", (device) => {
  const ring = makeTraceRing();
  const reader = new TraceReader(ring, true);
  const queue = openQueue(device, ring);
  return {
    ...queue,
    close() {
      // The last that were answered are there.
      expect(reader.take(DEPTH, DEPTH * BLOCK)).toMatchObject({ isMore: true, lost: expect.any(Number) });
      return queue.close();
    },
  };
});
