/** What is counted and told of the requests that a connection has answered. */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { Trace } from "../../transport.ts";
import type { RequestHeader } from "../wire/request-header.ts";

export class Account {
  readonly statistics = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  readonly #trace: Trace | undefined;

  constructor(trace: Trace | undefined) {
    this.#trace = trace;
  }

  /** @param status an errno, 0 for success. */
  answered(request: RequestHeader, status: number): void {
    const { statistics } = this;
    statistics.requests += 1;
    if (status !== 0) statistics.errors += 1;
    else if (request.command === NBD_CMD_READ) statistics.bytesRead += request.length;
    else if (request.command === NBD_CMD_WRITE) statistics.bytesWritten += request.length;
    this.tell(request, status);
  }

  /** For what is told, and not counted. */
  tell({ command, flags, offset, length }: RequestHeader, status: number): void {
    this.#trace?.(command, flags, offset, length, status);
  }
}
