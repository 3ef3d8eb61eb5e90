/** Starts a queue where it is to run: on a thread of its own, or on the event loop of this one. */
import type { Dispatch } from "../../dispatch.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";
import { QueueThread } from "./thread.ts";
import type { UblkOptions } from "../options.ts";
import { traceTo } from "./trace.ts";

export interface RunningQueue {
  /** Settles when the device has been stopped. Rejected when the queue serves no more though it has not. */
  readonly ended: Promise<void>;
  /** Ends what it runs on, where that is its own. */
  end(): Promise<void>;
}

/** Whether requests can be served by threads of their own. What is traced is told on the main thread. */
export function canUseThreads(dispatch: Dispatch, options: UblkOptions): boolean {
  return dispatch.shared !== undefined && options.trace === undefined;
}

/**
 * Returns once all tags of the queue are with the driver.
 * @param failed is called when the queue has failed, and answers everything with EIO until the device is stopped.
 * @throws Error when the tags are not taken.
 */
export async function startQueue(
  place: QueuePlace,
  dispatch: Dispatch,
  counters: Float64Array<SharedArrayBuffer>,
  options: UblkOptions,
  failed: (error: unknown) => void,
): Promise<RunningQueue> {
  const { requestTimeoutMs, log } = options;
  const { shared } = dispatch;
  if (shared === undefined || !canUseThreads(dispatch, options)) {
    const trace = options.trace === undefined ? undefined : traceTo(options.trace);
    const queue = new Queue(place, dispatch, counters, { requestTimeoutMs, log, trace, failed });
    const ended = new QueueRunner(queue).run().finally(() => queue.close());
    return { ended, end: () => Promise.resolve() };
  }
  const thread = new QueueThread(log, failed);
  await thread.start({
    place,
    device: shared,
    blockSize: dispatch.blockSize,
    readOnly: !dispatch.capabilities.write,
    requestTimeoutMs,
    busyPollMs: options.busyPollMs,
    counters,
  });
  return { ended: thread.ended(), end: () => thread.end() };
}
