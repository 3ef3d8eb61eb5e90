/** Starts a queue on a thread of its own, or on the event loop of this one. */
import type { Dispatch } from "../../dispatch.ts";
import { canUseThreads } from "../../queues/count.ts";
import { close } from "../../libc/file.ts";
import { QueueThread } from "../../queues/thread.ts";
import { within } from "../../serving/deadline.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import type { UblkOptions } from "../options.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";
import { traceTo } from "./trace.ts";
import { closeLeftRing, type LeftRing, type UblkOnThread } from "./on-thread.ts";

/** How long a queue may take to end once told, in milliseconds. */
const END_LIMIT_MS = 1500;

/** A queue that is ready to serve. */
export interface PreparedQueue {
  /**
   * Hands all its tags to the driver, and serves it from then on.
   * @param fd /dev/ublkcN; remains the caller's, and must stay open until the queue has ended.
   * @throws Error if the driver does not accept the tags.
   */
  handOver(fd: number): Promise<void>;
  /**
   * Settles when the device has been stopped, or the queue was told to leave; rejects if it stops serving for another
   * reason. Call it once, after {@link handOver}.
   */
  ended(): Promise<void>;
  /**
   * Ends its thread, if it has one. If the queue has left, the driver looks for the next server from then on; without a
   * thread, from the end of this process on.
   */
  end(): Promise<void>;
}

/**
 * @param failed called when the queue has failed and answers everything with EIO until the device is stopped.
 * @throws Error if something that it needs is unavailable.
 */
export async function prepareQueue(
  place: QueuePlace,
  dispatch: Dispatch,
  counters: Float64Array<SharedArrayBuffer>,
  options: UblkOptions,
  failed: (error: unknown) => void,
): Promise<PreparedQueue> {
  const { requestTimeoutMs, busyPollMs, log } = options;
  if (!canUseThreads(dispatch, options)) {
    const trace = options.trace === undefined ? undefined : traceTo(options.trace);
    const queue = new Queue(place, dispatch, counters, { requestTimeoutMs, log, trace, failed });
    return onEventLoop(queue, new QueueRunner(queue, new HaltPoll(busyPollMs)));
  }
  const thread = new QueueThread<UblkOnThread, LeftRing | undefined>({ log, refusing: failed });
  await thread.prepare({ driver: "ublk", place }, dispatch, { requestTimeoutMs, busyPollMs, counters });
  return onThread(thread);
}

function onThread(thread: QueueThread<UblkOnThread, LeftRing | undefined>): PreparedQueue {
  let left: LeftRing | undefined;
  let ended: Promise<void> | undefined;
  return {
    handOver: async (fd) => {
      await thread.handOver(fd);
      ended = thread.ended().then((ring) => void (left = ring));
      ended.catch(() => undefined);
    },
    ended: () => ended ?? Promise.resolve(),
    end: async () => {
      // Only its end says what it leaves, whether or not somebody waits for that.
      if (ended !== undefined) await within(Promise.allSettled([ended]), END_LIMIT_MS);
      await thread.end();
      if (left !== undefined) await closeLeftRing(left);
      left = undefined;
    },
  };
}

function onEventLoop(queue: Queue, runner: QueueRunner): PreparedQueue {
  let running: Promise<void> | undefined;
  let ring = -1;
  return {
    handOver: (fd) => {
      queue.handOver(fd);
      running = runner.run().finally(() => (ring = queue.close()));
      return Promise.resolve();
    },
    ended: () => running ?? Promise.resolve(),
    end: () => {
      // It has never served.
      if (running === undefined) queue.close();
      if (ring >= 0) close(ring);
      ring = -1;
      return Promise.resolve();
    },
  };
}
