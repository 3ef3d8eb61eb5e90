/** How a device is to be put on /dev/ublkbN. */
import type { TakeOver, Trace } from "../transport.ts";

export interface UblkOptions {
  /** Queues, each with a thread of its own. Default 1; always 1 for a device that only its own thread can reach. */
  readonly queues?: number | undefined;
  /** Requests in flight at once, in each queue. Default 128. */
  readonly queueDepth?: number | undefined;
  /** Let the device outlive this process: its users wait until another one goes on. One that waits is taken over. */
  readonly recover?: boolean | undefined;
  /** Let another process take the device over, though its users wait in vain if this one is killed. */
  readonly handover?: boolean | undefined;
  /** Take a device over from the process that serves it. */
  readonly takeOver?: TakeOver | undefined;
  /** The device may hold swap: requests are short, and the memory for all of them is there from the start. */
  readonly swap?: boolean | undefined;
  /** Take a device over whose server is gone. */
  readonly resume?: boolean | undefined;
  /**
   * Milliseconds for which a queue asks for requests over and over before its thread sleeps, or the event loop has its
   * turn. Default: what pays, and 0 where there is one processor.
   */
  readonly busyPollMs?: number | undefined;
  /** A request that takes longer is answered with EIO. Default: none does. */
  readonly requestTimeoutMs?: number | undefined;
  readonly trace?: Trace | undefined;
  readonly log?: ((line: string) => void) | undefined;
}
