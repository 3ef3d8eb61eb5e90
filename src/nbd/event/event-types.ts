/** What an event connection is given, and what it tells. */
import type { Dispatch } from "../../dispatch.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { Trace } from "../../transport.ts";
import type { RangeOrder } from "../../serving/range-order.ts";

/** Where the bytes go, and who stops those that come: a socket. */
export interface Outlet {
  /** Takes some of the bytes. Returns how many, less than 0 when there is nobody to take them. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  /** Everything has been said. */
  end(): void;
}

/** What the connections of one device share. */
export interface Service {
  readonly dispatch: Dispatch;
  readonly order: RangeOrder;
  readonly pool: BufferPool;
}

export interface EventOptions {
  /** Requests in flight at once. Default 128, as the kernel's client has it. */
  readonly queueDepth?: number | undefined;
  /** A request that takes longer is answered with EIO. Default: none does. */
  readonly requestTimeoutMs?: number | undefined;
  /** Milliseconds for which the tight pump asks its socket over and over before it sleeps. Default 0. */
  readonly busyPollMs?: number | undefined;
  readonly trace?: Trace | undefined;
  readonly log?: ((line: string) => void) | undefined;
  /** The peer has asked for structured replies. */
  readonly structured?: boolean | undefined;
  /** The peer has asked for `base:allocation`. */
  readonly allocation?: boolean | undefined;
}

/**
 * How a connection ended: `disconnect`, the peer asked for it; `closed`, the peer is gone; `broken`, what it sent is
 * not NBD; `stopped`, this end wanted it.
 */
export type Ending = "disconnect" | "closed" | "broken" | "stopped";
