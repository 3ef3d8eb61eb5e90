/** A device that is served on a target, as those see it who have put it there. */
export interface Transport {
  /** The node, `/dev/nbd0`, or the URI of a server. */
  readonly path: string;
  /** Requests answered so far. */
  readonly requests: number;
  readonly statistics: Statistics;
  /** True, as it is at first: the event loop is looked after every few milliseconds even when there is no request. */
  set watchful(on: boolean);
  /** Serves until it is detached. `onReady` is called once, when the device can be used. */
  serve(onReady: () => void): Promise<void>;
  /** Writes everything back and disconnects; {@link serve} returns when that is done. */
  detach(): void;
  /** Disconnects at once; data that was not written back is lost. */
  cut(): void;
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
 */
export type Trace = (command: number, flags: number, offset: number, length: number, error: number) => void;
