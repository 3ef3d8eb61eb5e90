/** What is counted and told of the requests that a connection has answered. */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { Clock } from "../../serving/clock.ts";
import { BYTES_READ, BYTES_WRITTEN, ERRORS, REQUESTS } from "../../queues/counters.ts";
import type { Trace } from "../../transport.ts";
import type { Request } from "./request.ts";

const MICROSECONDS = 1000;

export class Account {
  readonly counters: Float64Array;
  readonly #trace: Trace | undefined;
  readonly #clock: Clock;

  constructor(counters: Float64Array, trace: Trace | undefined, clock: Clock) {
    this.counters = counters;
    this.#trace = trace;
    this.#clock = clock;
  }

  /** @param status an errno, 0 for success. */
  answered(request: Request, status: number): void {
    const { counters } = this;
    counters[REQUESTS] = (counters[REQUESTS] ?? 0) + 1;
    if (status !== 0) counters[ERRORS] = (counters[ERRORS] ?? 0) + 1;
    else if (request.command === NBD_CMD_READ)
      counters[BYTES_READ] = (counters[BYTES_READ] ?? 0) + request.length;
    else if (request.command === NBD_CMD_WRITE)
      counters[BYTES_WRITTEN] = (counters[BYTES_WRITTEN] ?? 0) + request.length;
    this.tell(request, status);
  }

  /** For what is told, and not counted. */
  tell(request: Request, status: number): void {
    const trace = this.#trace;
    if (trace === undefined) return;
    // The device was not asked.
    if (request.begun === 0) request.begun = request.settled = this.#clock.now;
    const { command, flags, offset, length, arrived, begun, settled } = request;
    const queued = (begun - arrived) * MICROSECONDS;
    trace(command, flags, offset, length, status, queued, (settled - begun) * MICROSECONDS, settled);
  }
}
