/** Options for a device on /dev/ublkbN. */
import type { TakeOver, Trace } from "../transport.ts";

export interface UblkOptions {
  /** Queues, each with a thread of its own. Default 1; always 1 for a device that only its own thread can reach. */
  readonly queues?: number | undefined;
  /** Requests in flight at once, in each queue. Default 128. */
  readonly queueDepth?: number | undefined;
  /** Let the device outlive this process: its users wait for the next one. Takes over a device that waits. */
  readonly recover?: boolean | undefined;
  /** Let another process take the device over. But if this one is killed, its users wait in vain. */
  readonly handover?: boolean | undefined;
  /** Take a device over from the process that serves it. */
  readonly takeOver?: TakeOver | undefined;
  /** The device may hold swap: requests are short, and the memory for all of them is allocated at the start. */
  readonly swap?: boolean | undefined;
  /** Take over a device whose server is gone. */
  readonly resume?: boolean | undefined;
  /**
   * Milliseconds for which a queue polls for requests before its thread sleeps, or the event loop gets its turn.
   * Default: what pays, and 0 on a single processor.
   */
  readonly busyPollMs?: number | undefined;
  /** A request that takes longer is answered with EIO. Default: no limit. */
  readonly requestTimeoutMs?: number | undefined;
  readonly trace?: Trace | undefined;
  readonly log?: ((line: string) => void) | undefined;
}
