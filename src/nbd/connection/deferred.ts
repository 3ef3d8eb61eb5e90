/**
 * Requests of tight connections that a device answers with a promise: noted down, and answered once it settles. The
 * objects are used again.
 */
import assert from "node:assert";
import { NBD_CMD_FLUSH, NBD_CMD_READ } from "../../uapi/nbd.ts";
import type { ReplyBatch } from "./reply-batch.ts";
import type { Staging } from "./staging.ts";

/** One request between the call of the device's method and the reply. */
export class DeferredRequest {
  command = 0;
  flags = 0;
  offset = 0;
  length = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** Where the payload is in the staging area; -1 without one. */
  position = -1;
  /** An errno, 0 for success: once it is settled. */
  status = 0;
  changes = false;
  /** Its place in the list of those in flight. */
  place = -1;
  readonly settle: (status: number) => void;

  constructor(settled: (request: DeferredRequest) => void) {
    this.settle = (status) => {
      this.status = status;
      settled(this);
    };
  }
}

/** What a device has in flight, for all its connections. */
export class InFlight {
  readonly #requests: DeferredRequest[] = [];

  get isEmpty(): boolean {
    return this.#requests.length === 0;
  }

  /** Whether a request has to wait for one in flight that touches the same bytes, where either changes them. */
  conflicts(offset: number, length: number, changes: boolean): boolean {
    for (let index = 0; index < this.#requests.length; index += 1) {
      const other = this.#requests[index];
      if (other === undefined || !(changes || other.changes)) continue;
      if (offset < other.offset + other.length && other.offset < offset + length) return true;
    }
    return false;
  }

  add(request: DeferredRequest): void {
    request.place = this.#requests.length;
    this.#requests.push(request);
  }

  remove(request: DeferredRequest): void {
    const last = this.#requests.pop();
    if (last === undefined || last === request) return;
    this.#requests[request.place] = last;
    last.place = request.place;
  }
}

/** How many requests a connection may have deferred: as many as the kernel's client has. */
const DEFERRED_MAX = 128;

/** Those of one connection. */
export class Deferred {
  /** How many are in flight, or settled and not taken. */
  count = 0;
  readonly #inFlight: InFlight;
  readonly #staging: Staging;
  readonly #spare: DeferredRequest[] = [];
  readonly #settled: DeferredRequest[] = [];
  #whenSettled: (() => void) | undefined;

  constructor(inFlight: InFlight, staging: Staging) {
    this.#inFlight = inFlight;
    this.#staging = staging;
  }

  /** Whether there is one to be taken. */
  get hasSettled(): boolean {
    return this.#settled.length > 0;
  }

  /** Whether the request must wait: see {@link InFlight.conflicts}; and there are only so many at a time. */
  blocks(offset: number, length: number, changes: boolean): boolean {
    if (this.count === 0 && this.#inFlight.isEmpty) return false;
    return this.count >= DEFERRED_MAX || this.#inFlight.conflicts(offset, length, changes);
  }

  /** A request to be given to {@link begin}. */
  make(command: number, flags: number, offset: number, length: number, position: number): DeferredRequest {
    const request = this.#spare.pop() ?? new DeferredRequest((settled) => this.#settle(settled));
    request.command = command;
    request.flags = flags;
    request.offset = offset;
    request.length = length;
    request.position = position;
    request.changes = command !== NBD_CMD_READ && command !== NBD_CMD_FLUSH;
    return request;
  }

  /** The request is in flight until `status` settles, which is never rejected. */
  begin(request: DeferredRequest, cookieHigh: number, cookieLow: number, status: Promise<number>): true {
    request.cookieHigh = cookieHigh;
    request.cookieLow = cookieLow;
    this.count += 1;
    this.#inFlight.add(request);
    if (request.position >= 0) this.#staging.lend(request.position, request.length);
    void status.then(request.settle);
    return true;
  }

  /** Queues the reply to the request that settled first; there must be one. Its payload must be sent next. */
  answer(replies: ReplyBatch): DeferredRequest {
    const request = this.#settled.shift();
    assert(request !== undefined);
    const { command, status, position, offset, length, cookieHigh, cookieLow } = request;
    if (command === NBD_CMD_READ && status === 0)
      replies.data(this.#staging.addressOf(position), offset, length, cookieHigh, cookieLow);
    else replies.status(status, cookieHigh, cookieLow);
    this.count -= 1;
    if (position >= 0) this.#staging.takeBack(position, length);
    this.#spare.push(request);
    return request;
  }

  /** Calls `action` once the device has none of them: now, or as soon as the last one settles. */
  whenSettled(action: () => void): void {
    if (this.count === this.#settled.length) action();
    else this.#whenSettled = action;
  }

  #settle(request: DeferredRequest): void {
    this.#inFlight.remove(request);
    this.#settled.push(request);
    if (this.count === this.#settled.length) this.#whenSettled?.();
  }
}
