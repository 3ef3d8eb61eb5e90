/** Starts a queue where it is to run: on a thread of its own, or on the event loop of this one. */
import type { Dispatch } from "../../dispatch.ts";
import { canUseThreads } from "../../queues/count.ts";
import { QueueThread } from "../../queues/thread.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import type { UblkOptions } from "../options.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";
import { traceTo } from "./trace.ts";
import type { UblkOnThread } from "./on-thread.ts";

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
  const thread = new QueueThread<UblkOnThread, void>({ log, refusing: failed });
  await thread.prepare({ driver: "ublk", place }, dispatch, { requestTimeoutMs, busyPollMs, counters });
  return thread;
}

function onEventLoop(queue: Queue, runner: QueueRunner): PreparedQueue {
  let running: Promise<void> | undefined;
  return {
    handOver: (fd) => {
      queue.handOver(fd);
      running = runner.run().finally(() => queue.hasLeft || queue.close());
      return Promise.resolve();
    },
    ended: () => running ?? Promise.resolve(),
    end: () => {
      // One that has never been served, or has left.
      if (running === undefined || queue.hasLeft) queue.close();
      return Promise.resolve();
    },
  };
}
