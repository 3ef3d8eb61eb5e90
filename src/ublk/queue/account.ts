/** Counts and traces the requests that a queue has answered. */
import type { Dispatch, Status } from "../../dispatch.ts";
import { BYTES_READ, BYTES_WRITTEN, ERRORS, REQUESTS } from "../../queues/counters.ts";
import { Ledger } from "../../queues/ledger.ts";
import type { Clock } from "../../serving/clock.ts";
import { UBLK_IO_OP_READ, UBLK_IO_OP_WRITE } from "../../uapi/ublk_cmd.ts";
import type { QueueOptions, QueuePlace } from "./place.ts";
import type { QueueRequest } from "./request.ts";
import type { TagBuffers } from "./tag-buffers.ts";
import { RingTrace } from "./trace.ts";

export class Account {
  readonly ledger: Ledger;
  readonly #counters: Float64Array;
  readonly #trace: QueueOptions["trace"];
  readonly #ring: RingTrace | undefined;
  readonly #clock: Clock;
  readonly #isMemory: boolean;
  /** Completions that arrived before the last turn, which had no time for them, and when. */
  #leftOver = 0;
  #leftSince = 0;
  #turnSince = 0;

  constructor(
    counters: Float64Array,
    trace: QueueOptions["trace"],
    clock: Clock,
    dispatch: Dispatch,
    { traceRing }: QueuePlace,
    buffers: TagBuffers,
  ) {
    this.ledger = new Ledger(counters, dispatch);
    this.#isMemory = dispatch.memoryAddress >= 0;
    this.#counters = counters;
    this.#trace = trace;
    this.#ring = traceRing && new RingTrace(traceRing, dispatch, buffers);
    this.#clock = clock;
  }

  /** Call it at the start of a turn: completions not left over have just arrived. */
  turnBegins(): void {
    this.#turnSince = this.#clock.now;
  }

  /** @param index of the completion that brings the request, in this turn. */
  came(request: QueueRequest, index: number): void {
    // A write that comes for the second time, now with its data, arrived before.
    if (request.arrived !== 0) return;
    request.arrived = index < this.#leftOver ? this.#leftSince : this.#turnSince;
  }

  /** The device gets the request. */
  begins(request: QueueRequest): void {
    request.begun = this.#clock.now;
    this.ledger.calls(request);
  }

  /** The device has answered, or returned a promise, which is timed when it settles. */
  deviceReturned({ operation, fua }: QueueRequest, status: Status): void {
    this.ledger.returned();
    if (typeof status !== "number") return;
    const isData = operation === UBLK_IO_OP_READ || operation === UBLK_IO_OP_WRITE;
    // Copying from or to memory takes less time than reading the clock.
    if (!this.#isMemory || !isData || fua) this.#clock.read();
  }

  /** @param left completions for which there was no time. @param done the others. */
  turnEnds(left: number, done: number): void {
    if (done >= this.#leftOver) this.#leftSince = this.#turnSince;
    this.#leftOver = left;
  }

  /**
   * @param status an errno, 0 for success.
   * @param tells false if the trace has thrown.
   */
  answered(request: QueueRequest, status: number, tells: boolean): void {
    const { operation, length } = request;
    const counters = this.#counters;
    request.settled = this.#clock.now;
    // The device was not called.
    if (request.begun === 0) request.begun = request.settled;
    this.ledger.answered(request, status);
    counters[REQUESTS] = (counters[REQUESTS] ?? 0) + 1;
    if (status !== 0) counters[ERRORS] = (counters[ERRORS] ?? 0) + 1;
    else if (operation === UBLK_IO_OP_READ) counters[BYTES_READ] = (counters[BYTES_READ] ?? 0) + length;
    else if (operation === UBLK_IO_OP_WRITE)
      counters[BYTES_WRITTEN] = (counters[BYTES_WRITTEN] ?? 0) + length;
    this.#ring?.put(request, status);
    if (tells) this.#trace?.(request, status);
    // The device still has an abandoned request, which is recognized by its time of arrival.
    if (!request.abandoned) request.arrived = request.begun = 0;
  }
}
