/** Starts a queue where it is to run: on a thread of its own, or on the event loop of this one. */
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

/** How long a queue that has been told to end may take for it, in milliseconds. */
const END_LIMIT_MS = 1500;

/** A queue that has all it needs. */
export interface PreparedQueue {
  /**
   * Hands all its tags to the driver, and serves it from then on.
   * @param fd /dev/ublkcN; still the caller's, and open until the queue has ended.
   * @throws Error when the tags are not taken.
   */
  handOver(fd: number): Promise<void>;
  /**
   * Settles when the device has been stopped, or the queue was told to leave; rejected when it serves no more though
   * neither is so. To be called once, after {@link handOver}.
   */
  ended(): Promise<void>;
  /**
   * Ends what it runs on, where that is its own. One that has left has the driver look for the next server from now on;
   * else from the end of this process on.
   */
  end(): Promise<void>;
}

/**
 * @param failed is called when the queue has failed, and answers everything with EIO until the device is stopped.
 * @throws Error when something that it needs is not to be had.
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
      // What it leaves is known by its end, whether or not somebody has waited for that.
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
      // One that has never been served.
      if (running === undefined) queue.close();
      if (ring >= 0) close(ring);
      ring = -1;
      return Promise.resolve();
    },
  };
}
