/** What all connections to one device share. */
import type { Dispatch } from "../../dispatch.ts";
import { makeCounters } from "../../queues/counters.ts";
import { Ledger } from "../../queues/ledger.ts";
import { Clock } from "../../serving/clock.ts";
import { LogLimit } from "../../serving/log-limit.ts";
import { ENTRIES_MAX, RangeOrder } from "../../serving/range-order.ts";
import { Watchdog } from "../../serving/watchdog.ts";
import type { Trace } from "../../transport.ts";
import { PayloadPool } from "./payload-pool.ts";
import type { Request } from "./request.ts";

/** How to serve requests of any sender. */
export interface RequestOptions {
  /** Requests of each connection that the device has at once. Default 128, as many as the kernel's client sends. */
  readonly queueDepth?: number | undefined;
  /** A request that the device has not answered within this time is answered with EIO. Default: no limit. */
  readonly requestTimeoutMs?: number | undefined;
  /** Milliseconds to poll for the next request before sleeping: see {@link HaltPoll}. */
  readonly busyPollMs?: number | undefined;
  readonly trace?: Trace | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

export class Service {
  readonly clock = new Clock();
  readonly ledger: Ledger;
  readonly order: RangeOrder;
  readonly pool: PayloadPool;
  readonly watchdog: Watchdog<Request> | undefined;
  /** Gets a line for each abandoned request. */
  readonly late: LogLimit;
  /** Gets a line when the device no longer answers a client. */
  readonly unanswering: LogLimit;

  /**
   * @param poolBytes for payloads in memory, of all connections together.
   * @param connections at once, at most.
   * @param cells of the ledger, see there.
   */
  constructor(
    readonly dispatch: Dispatch,
    readonly options: RequestOptions,
    poolBytes: number,
    connections = 1,
    readonly cells: Float64Array = makeCounters(),
  ) {
    this.ledger = new Ledger(cells, dispatch);
    this.order = new RangeOrder(this.ledger, Math.max(ENTRIES_MAX, connections * (options.queueDepth ?? 0)));
    this.pool = new PayloadPool(poolBytes);
    this.late = new LogLimit((line) => options.log?.(line), "requests took too long: answered with EIO");
    this.unanswering = new LogLimit((line) => options.log?.(line), "clients get no answer from the device");
    const { requestTimeoutMs } = options;
    if (requestTimeoutMs !== undefined)
      this.watchdog = new Watchdog(requestTimeoutMs, (request) => request.giveUp());
  }

  /** Stops the time limits of requests. */
  close(): void {
    this.watchdog?.stop();
    this.late.close();
    this.unanswering.close();
  }
}
