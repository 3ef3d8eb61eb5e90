/** Repeats what a server may have lost (see unflushed.ts), in order where that matters. */
import type { ClientRequest } from "./request.ts";
import type { RequestTable } from "./request-table.ts";
import type { UnflushedWrites } from "./unflushed.ts";

/** Requests in flight at once. */
const DEPTH = 32;

export class Repeats {
  readonly #unflushed: UnflushedWrites;
  readonly #table: RequestTable;
  #next: number;
  readonly #end: number;
  readonly #inFlight = new Set<ClientRequest>();

  constructor(unflushed: UnflushedWrites, table: RequestTable) {
    this.#unflushed = unflushed;
    this.#table = table;
    this.#next = unflushed.first;
    this.#end = unflushed.end;
  }

  /** @param send returns false if there is no room now. Returns true once everything is answered. */
  send(send: (request: ClientRequest) => boolean): boolean {
    while (this.#next < this.#end && this.#inFlight.size < DEPTH) {
      const request = this.#table.take();
      this.#unflushed.load(this.#next, request);
      request.isRepeat = true;
      if (this.#overlaps(request) || !send(request)) {
        this.#table.give(request);
        break;
      }
      this.#inFlight.add(request);
      this.#next += 1;
    }
    return this.#next === this.#end && this.#inFlight.size === 0;
  }

  done(request: ClientRequest): void {
    this.#inFlight.delete(request);
  }

  /** Whether an earlier write of the same range is in flight, for which this one must wait. */
  #overlaps({ offset, length }: ClientRequest): boolean {
    for (const other of this.#inFlight)
      if (offset < other.offset + other.length && other.offset < offset + length) return true;
    return false;
  }
}
