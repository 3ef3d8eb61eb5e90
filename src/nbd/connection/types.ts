/** What a tight connection is given, and what it tells. */
import type { Trace } from "../../transport.ts";
import type { InFlight } from "./deferred.ts";
import type { StagingBudget } from "./staging.ts";

/**
 * How a run ended: `turn`, the event loop is due; `disconnect`, the peer asked for it; `closed`, the peer is gone;
 * `broken`, what it sent is not NBD, or the socket failed.
 */
export type Outcome = "turn" | "disconnect" | "closed" | "broken";

/**
 * What a connection waits for after `turn`: `nothing`, there may be more to do at once; `input`, requests or the
 * rest of one; `output`, that the peer takes replies; `memory`, that the staging budget has some; `device`, that the
 * device is done with requests that are in the way.
 */
export type Wait = "nothing" | "input" | "output" | "memory" | "device";

export interface ConnectionOptions {
  readonly trace?: Trace | undefined;
  /** The peer has asked for structured replies. */
  readonly structured?: boolean | undefined;
  /** The peer has asked for `base:allocation`. */
  readonly allocation?: boolean | undefined;
  /** What it may have in memory for long payloads. Default: no limit, which is 32 MiB. */
  readonly budget?: StagingBudget | undefined;
  /** What the device has in flight: one for all connections to it. */
  readonly inFlight?: InFlight | undefined;
  /** Milliseconds for which it asks the socket over and over before it waits in a receive. Default 0. */
  readonly busyPollMs?: number | undefined;
}
