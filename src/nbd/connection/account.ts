/** What is counted and told of the requests that a connection has answered. */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import { BYTES_READ, BYTES_WRITTEN, ERRORS, REQUESTS } from "../../queues/counters.ts";
import type { Trace } from "../../transport.ts";
import type { RequestHeader } from "../wire/request-header.ts";

export class Account {
  readonly counters: Float64Array;
  readonly #trace: Trace | undefined;

  constructor(counters: Float64Array, trace: Trace | undefined) {
    this.counters = counters;
    this.#trace = trace;
  }

  /** @param status an errno, 0 for success. */
  answered(request: RequestHeader, status: number): void {
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
  tell({ command, flags, offset, length }: RequestHeader, status: number): void {
    this.#trace?.(command, flags, offset, length, status);
  }
}
