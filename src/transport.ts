/** A device that is served on a target, as those see it who have put it there. */
import type { UserError } from "./errors.ts";

export interface Transport {
  /** The node, `/dev/nbd0`, or the URI of a server. */
  readonly path: string;
  /** Requests answered so far. */
  readonly requests: number;
  readonly statistics: Statistics;
  /** What each of its queues has counted: see queues/ledger.ts. */
  readonly ledgers: readonly Float64Array[];
  /** Requests that have come and are not answered, as far as it is known here. */
  readonly inFlight: number;
  /** What its queues have answered last, of each: see queues/trace-ring.ts. */
  readonly traceRings: readonly SharedArrayBuffer[];
  /** True, as it is at first: the event loop is looked after every few milliseconds even when there is no request. */
  set watchful(on: boolean);
  /**
   * Serves until it is detached, or was cut off. `onReady` is called once, when the device can be used.
   * @param end is told when no more requests come, and flushes the device when the last one has been answered.
   */
  serve(onReady: () => void, end: End): Promise<void>;
  /** Whether those who use it can be told of another size. @throws UserError when they cannot, or not now. */
  checkResizable(): void | Promise<void>;
  /** Tells them, and returns when they know. Bytes, whole blocks. @throws UserError */
  showSize(size: number): void | Promise<void>;
  /** Writes everything back and disconnects; {@link serve} returns when that is done. Does nothing once it has. */
  detach(): void;
  /**
   * As {@link detach}, but its users keep the node, and wait for the next server: what has been begun is answered, and
   * the device flushed; then this process has to end. To be called when the node can be used, and was made to outlive
   * its server. Absent: it cannot.
   */
  leave?(): void;
  /** Whether the node waits for another server when this process is killed, as it was made. Absent: it does not. */
  readonly isRecoverable?: boolean;
  /** Disconnects at once; data that was not written back is lost. {@link serve} is rejected with the reason. */
  cut(reason: UserError): void;
  /** By which another process can serve the device from then on; undefined where none can. */
  readonly handover?: Handover | undefined;
}

/** A device that is handed on to another process while it is in use. One at a time. */
export interface Handover {
  /** What the other process has to have of the driver's: descriptors of this one, by their names. */
  readonly fds: Readonly<Record<string, number>>;
  /**
   * Answers what is in flight, and lets go: requests wait. "stays": this process can still go on, see `takeBack`.
   * "leaves": the other one can begin when this one has ended.
   * @throws UserError when it does not let go; it is served on.
   */
  letGo(): Promise<"stays" | "leaves">;
  /** Nobody has taken it: serves on, or leaves it to the next one. */
  takeBack(): void;
  /** Somebody has, or will: {@link Transport.serve} returns. */
  handedOn(): void;
}

/** What takes a device over from the process that serves it. */
export interface TakeOver {
  /** Whether the data of a device came along that has no other place. */
  readonly hasData: boolean;
  /** What that process says of its device: see identity.ts. */
  readonly identity: string | undefined;
  /** Of {@link Handover.fds}: a descriptor of this process, the caller's; -1 for none. @throws UserError */
  descriptor(name: string): number;
  /**
   * Has that process let go of it. From then on no request is answered.
   * @returns whether it did so in order; false: it was killed, and what it had begun may not be answered.
   * @throws UserError
   */
  release(): Promise<boolean>;
  /** It is served here: that process ends, and takes nothing back from then on. @throws UserError when it may still. */
  done(): Promise<void>;
}

/** The end of a device in use. */
export interface End {
  /** It has begun, whoever brings it about. */
  startClock(): void;
  /** @throws UserError when it fails, or is not waited for any more. */
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
  /** Of these, answered with an error. */
  readonly errors: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/**
 * Sees every request when it has been answered: NBD_CMD_* and NBD_CMD_FLAG_*, whichever the transport is. Offset and
 * length in bytes; `error` is an errno, 0 for success.
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
