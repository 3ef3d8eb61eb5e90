/** A device that is served on a target, as those see it who have put it there. */
export interface Transport {
  /** The node, `/dev/nbd0`, or the URI of a server. */
  readonly path: string;
  /** Requests answered so far. */
  readonly requests: number;
  readonly statistics: Statistics;
  /** True: the event loop is looked after every few milliseconds even when there is no request. */
  watchful: boolean;
  /** Serves until it is detached. `onReady` is called once, when the device can be used. */
  serve(onReady: () => void): Promise<void>;
  /** Writes everything back and disconnects; {@link serve} returns when that is done. */
  detach(): void;
  /** Disconnects at once; data that was not written back is lost. */
  cut(): void;
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
