/**
 * One request between its header and its reply, if that is more than a moment: a write whose payload is arriving, a
 * request that waits for others, or one for which the device has returned a promise. Objects are reused, so that a
 * request allocates none.
 */
import type { ExtentsStatus } from "../../dispatch.ts";
import { kindOf } from "../../queues/ledger.ts";
import { OrderPlace, type Ranged } from "../../serving/range-order.ts";
import type { Times } from "../../serving/clock.ts";
import type { Timed } from "../../serving/watchdog.ts";
import { RequestHeader } from "../wire/request-header.ts";
import type { PayloadBuffer } from "./payload-pool.ts";

/** The device's answer to a request: an errno, 0 for success, or extents. */
export type Answer = ExtentsStatus;

/** What a request tells its connection. */
export interface RequestOwner {
  /** Nothing blocks it any more. */
  proceed(request: Request): void;
  /** The device has answered. */
  settled(request: Request, answer: Answer): void;
  /** The device has not answered in time. */
  gaveUp(request: Request): void;
}

export class Request extends RequestHeader implements Ranged, Timed, Times {
  /** Its payload, if that is not in the device's memory. */
  buffer: PayloadBuffer | undefined;
  /** Why it does not go to the device: an errno, 0 if it does. */
  refused = 0;
  /** The device's answer, once there is one. */
  answer: Answer = 0;
  /** It was answered before the device was done with it. */
  abandoned = false;
  /** It waits for memory, and has not been begun; it has done so for too long. */
  isPostponed = false;
  isLate = false;
  /** The next one to answer. */
  next: Request | undefined;
  changes = false;
  since = 0;
  arrived = 0;
  begun = 0;
  settled = 0;

  readonly place = new OrderPlace();
  readonly settle: (answer: Answer) => void;
  readonly #owner: RequestOwner;

  constructor(owner: RequestOwner) {
    super();
    this.#owner = owner;
    this.settle = (answer) => owner.settled(this, answer);
  }

  proceed(): void {
    this.#owner.proceed(this);
  }

  giveUp(): void {
    this.#owner.gaveUp(this);
  }

  override copy(other: Request): void {
    super.copy(other);
    this.arrived = other.arrived;
    this.begun = other.begun;
  }

  get kind(): number {
    return kindOf(this.command, this.flags);
  }

  releaseBuffer(): void {
    this.buffer?.release();
    this.buffer = undefined;
  }
}
