/** The options of a connection, and its results. */
import type { TraceWriter } from "../../queues/trace-ring.ts";

/**
 * How a run ended: `turn`, there is nothing to do now, or others are due; `disconnect`, the peer asked for it;
 * `closed`, the peer is gone; `broken`, the peer violated the protocol, or the socket failed.
 */
export type Outcome = "turn" | "disconnect" | "closed" | "broken";

/**
 * What a connection waits for after `turn`: `nothing`, there may be more to do at once; `input`, requests or the rest
 * of one; `output`, for the peer to read replies; `memory`, for others to give some back; `device`, for the device to
 * finish some of its requests.
 */
export type Wait = "nothing" | "input" | "output" | "memory" | "device";

export interface ConnectionOptions {
  /** The peer's name in the log; absent if there is only one. */
  readonly name?: string | undefined;
  /** Where it counts its answers: see queues/counters.ts. Default: counters of its own. */
  readonly counters?: Float64Array | undefined;
  /** Where its answered requests go. Default: nowhere. */
  readonly ring?: TraceWriter | undefined;
  /** The peer has asked for structured replies. */
  readonly structured?: boolean | undefined;
  /** The peer has asked for `base:allocation`. */
  readonly allocation?: boolean | undefined;
  /** Called, outside of a run, when there is something to do although the socket has no news. */
  readonly onNews?: (() => void) | undefined;
}
