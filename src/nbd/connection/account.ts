/** What is counted and told of the requests that a connection has answered. */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { Trace } from "../../transport.ts";

export class Account {
  readonly statistics = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };

  constructor(readonly trace: Trace | undefined) {}

  /** Offset and length are bytes; `status` is an errno, 0 for success. */
  answered(command: number, flags: number, offset: number, length: number, status: number): void {
    const { statistics } = this;
    statistics.requests += 1;
    if (status !== 0) statistics.errors += 1;
    else if (command === NBD_CMD_READ) statistics.bytesRead += length;
    else if (command === NBD_CMD_WRITE) statistics.bytesWritten += length;
    this.trace?.(command, flags, offset, length, status);
  }
}
