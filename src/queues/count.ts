/** How many queues a device is served by. */
import type { Dispatch } from "../dispatch.ts";
import type { Trace } from "../transport.ts";

export interface QueueOptions {
  /** Queues, each with a thread of its own. Default 1; always 1 for a device that only its own thread can reach. */
  readonly queues?: number | undefined;
  readonly trace?: Trace | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

/** Whether requests can be served by threads of their own. What is traced is told on the main thread. */
export function canUseThreads(dispatch: Dispatch, { trace }: QueueOptions): boolean {
  return dispatch.shared !== undefined && trace === undefined;
}

/** As many as are asked for, or one and a line in the log. */
export function queueCount(dispatch: Dispatch, options: QueueOptions): number {
  const { queues = 1 } = options;
  if (queues === 1 || (canUseThreads(dispatch, options) && dispatch.shared?.byOneThread !== true))
    return queues;
  options.log?.("the device can be reached by one thread only: it is served by one queue");
  return 1;
}

/** The message for more queues than the kernel makes. @param processors the most that it makes. */
export function tooManyQueues(queues: number, processors: number): string {
  return `invalid number of queues ${queues}: this machine has processors for ${processors}, give that or less`;
}
