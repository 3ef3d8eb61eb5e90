/** What a connection is given, and what it tells. */
import type { TraceWriter } from "../../queues/trace-ring.ts";

/**
 * How a run ended: `turn`, there is nothing to do now, or others are due; `disconnect`, the peer asked for it;
 * `closed`, the peer is gone; `broken`, what it sent is not NBD, or the socket failed.
 */
export type Outcome = "turn" | "disconnect" | "closed" | "broken";

/**
 * What a connection waits for after `turn`: `nothing`, there may be more to do at once; `input`, requests or the
 * rest of one; `output`, that the peer takes replies; `memory`, that others give some back; `device`, that the device
 * is done with some of what it has.
 */
export type Wait = "nothing" | "input" | "output" | "memory" | "device";

export interface ConnectionOptions {
  /** Who the peer is, for the log; there may be only one. */
  readonly name?: string | undefined;
  /** What it answers is counted there: see queues/counters.ts. Default: counters of its own. */
  readonly counters?: Float64Array | undefined;
  /** What it answers goes there. Default: nowhere. */
  readonly ring?: TraceWriter | undefined;
  /** The peer has asked for structured replies. */
  readonly structured?: boolean | undefined;
  /** The peer has asked for `base:allocation`. */
  readonly allocation?: boolean | undefined;
  /** Called when there is something to do though the socket has no news, outside of a run. */
  readonly onNews?: (() => void) | undefined;
}
