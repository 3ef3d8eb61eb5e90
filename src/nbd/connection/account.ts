/** Counts and traces the requests that a connection has answered. */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { Clock } from "../../serving/clock.ts";
import type { Ledger } from "../../queues/ledger.ts";
import { BYTES_READ, BYTES_WRITTEN, ERRORS, REQUESTS } from "../../queues/counters.ts";
import type { TraceWriter } from "../../queues/trace-ring.ts";
import type { Trace } from "../../transport.ts";
import type { Request } from "./request.ts";
import type { Service } from "./service.ts";

const MICROSECONDS = 1000;

export class Account {
  readonly counters: Float64Array;
  readonly #trace: Trace | undefined;
  readonly #clock: Clock;
  readonly #ledger: Ledger;
  readonly #ring: TraceWriter | undefined;
  readonly #memoryAddress: number;

  /**
   * @param counters of this connection alone: see queues/counters.ts.
   * @param ring keeps the answered requests for its readers.
   */
  constructor(counters: Float64Array, service: Service, ring: TraceWriter | undefined) {
    const { clock, dispatch, ledger, options } = service;
    this.counters = counters;
    this.#ring = ring;
    this.#memoryAddress = dispatch.memoryAddress;
    this.#trace = options.trace;
    this.#clock = clock;
    this.#ledger = ledger;
  }

  /** A write still has its payload. @param status an errno, 0 for success. */
  answered(request: Request, status: number): void {
    const { counters } = this;
    this.#complete(request);
    this.#ledger.answered(request, status);
    counters[REQUESTS] = (counters[REQUESTS] ?? 0) + 1;
    if (status !== 0) counters[ERRORS] = (counters[ERRORS] ?? 0) + 1;
    else if (request.command === NBD_CMD_READ)
      counters[BYTES_READ] = (counters[BYTES_READ] ?? 0) + request.length;
    else if (request.command === NBD_CMD_WRITE)
      counters[BYTES_WRITTEN] = (counters[BYTES_WRITTEN] ?? 0) + request.length;
    if (this.#ring?.isRead === true) this.#keep(this.#ring, request, status);
    this.tell(request, status);
  }

  #keep(ring: TraceWriter, request: Request, status: number): void {
    const { command, flags, offset, length, buffer } = request;
    const hasData = ring.wantsData && command === NBD_CMD_WRITE && status === 0;
    const inMemory = this.#memoryAddress < 0 ? 0 : this.#memoryAddress + offset;
    ring.put(command, flags, offset, length, status, request, hasData ? (buffer?.address ?? inMemory) : 0);
  }

  /** Fills in the times of a request for which the device was not called. */
  #complete(request: Request): void {
    if (request.begun === 0) request.begun = request.settled = this.#clock.now;
  }

  /** Only traces a request, without counting it. */
  tell(request: Request, status: number): void {
    const trace = this.#trace;
    if (trace === undefined) return;
    this.#complete(request);
    const { command, flags, offset, length, arrived, begun, settled } = request;
    const queued = (begun - arrived) * MICROSECONDS;
    trace(command, flags, offset, length, status, queued, (settled - begun) * MICROSECONDS, settled);
  }
}
