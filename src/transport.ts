/** A device that is served on a target, as the code that put it there sees it. */
import type { UserError } from "./errors.ts";

export interface Transport {
  /** The node, `/dev/nbd0`, or the URI of a server. */
  readonly path: string;
  /** Requests answered so far. */
  readonly requests: number;
  readonly statistics: Statistics;
  /** What each of its queues has counted: see queues/ledger.ts. */
  readonly ledgers: readonly Float64Array[];
  /** Requests that have arrived and are not answered, as far as this thread knows. */
  readonly inFlight: number;
  /** What its queues have answered last, of each: see queues/trace-ring.ts. */
  readonly traceRings: readonly SharedArrayBuffer[];
  /** True, the initial value: the event loop gets a turn every few milliseconds even without requests. */
  set watchful(on: boolean);
  /**
   * Serves until it is detached, or was cut off. `onReady` is called once, when the device can be used.
   * @param end is told when no more requests come, and flushes the device when the last one has been answered.
   */
  serve(onReady: () => void, end: End): Promise<void>;
  /** Checks that users of the device can be told of a new size. @throws UserError if they cannot, or not now. */
  checkResizable(): void | Promise<void>;
  /** Tells them the new size in bytes, in whole blocks; returns when they know it. @throws UserError */
  showSize(size: number): void | Promise<void>;
  /** Writes everything back and disconnects; {@link serve} returns when that is done. Does nothing once it has. */
  detach(): void;
  /**
   * As {@link detach}, but users keep the node and wait for the next server. Answers what has been begun and flushes
   * the device; then this process has to end. Call it once the node can be used, and only for one that was made to
   * outlive its server. Absent: not possible.
   */
  leave?(): void;
  /** Whether the node was made to wait for another server when this process is killed. Absent: no. */
  readonly isRecoverable?: boolean;
  /** Disconnects at once; data that was not written back is lost. {@link serve} is rejected with the reason. */
  cut(reason: UserError): void;
  /** How another process can take the device over; undefined if none can. */
  readonly handover?: Handover | undefined;
}

/** A device that is handed on to another process while it is in use. One at a time. */
export interface Handover {
  /** What the other process needs from the driver: file descriptors of this process, by name. */
  readonly fds: Readonly<Record<string, number>>;
  /**
   * Answers what is in flight, and lets go: requests wait. "stays": this process can still go on, see `takeBack`.
   * "leaves": the other process can begin once this one has ended.
   * @throws UserError if it does not let go; this process keeps serving.
   */
  letGo(): Promise<"stays" | "leaves">;
  /** No process has taken it over: serves on, or leaves it to the next server. */
  takeBack(): void;
  /** Another process has taken it over, or will: {@link Transport.serve} returns. */
  handedOn(): void;
}

/** What takes a device over from the process that serves it. */
export interface TakeOver {
  /** Whether the data came along, of a device that keeps it in memory alone. */
  readonly hasData: boolean;
  /** What that process says of its device: see identity.ts. */
  readonly identity: string | undefined;
  /** A copy of one of {@link Handover.fds}, to be closed by the caller; -1 if there is none. @throws UserError */
  descriptor(name: string): number;
  /**
   * Makes that process let go of the device. From then on no request is answered.
   * @returns true if it did so in order; false if it was killed, and what it had begun may be unanswered.
   * @throws UserError
   */
  release(): Promise<boolean>;
  /** The device is served here: that process ends and cannot take it back. @throws UserError if it still may. */
  done(): Promise<void>;
}

/** The end of a device in use. */
export interface End {
  /** The end has begun, whoever asked for it. */
  startClock(): void;
  /** @throws UserError if it fails, or if the time for it is over. */
  flush(dispatch: { flush(): number | Promise<number> }): Promise<void>;
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

export function addStatistics(sum: Mutable<Statistics>, more: Statistics): void {
  sum.requests += more.requests;
  sum.errors += more.errors;
  sum.bytesRead += more.bytesRead;
  sum.bytesWritten += more.bytesWritten;
}

/** Counts since the start. */
export interface Statistics {
  /** Requests answered. */
  readonly requests: number;
  /** How many of these were answered with an error. */
  readonly errors: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/**
 * Sees every request once it has been answered, as NBD_CMD_* and NBD_CMD_FLAG_* whatever the transport. Offset and
 * length are bytes; `error` is an errno, 0 for success.
 *
 * Times are in microseconds. `queued` is from when the request was read until the device got it: the rest of its
 * payload, requests before it, others that touch the same bytes, memory. `served` is from then until the device was
 * done; it is 0 where bytes go to and from the memory of a device without asking it. `settledMs` is when that was, in
 * milliseconds by performance.now() of the thread.
 */
export type Trace = (
  command: number,
  flags: number,
  offset: number,
  length: number,
  error: number,
  queued: number,
  served: number,
  settledMs: number,
) => void;
