/** One tag's request on its way through a queue. Each tag has one object, used again and again. */
import { FLUSH, FUA_WRITE, OTHER, READ, TRIM, WRITE, ZERO } from "../../queues/ledger.ts";
import { OrderPlace, type Ranged } from "../../serving/range-order.ts";
import type { Times } from "../../serving/clock.ts";
import type { Timed } from "../../serving/watchdog.ts";
import {
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
  UBLK_IO_OP_WRITE_ZEROES,
} from "../../uapi/ublk_cmd.ts";

/** What a request tells its queue. */
export interface QueueOwner {
  /** Nothing blocks it any more. */
  proceed(request: QueueRequest): void;
  /** The device has answered: an errno, 0 for success. */
  settled(request: QueueRequest, status: number): void;
  /** Handling the request has thrown. */
  failed(error: unknown, request: QueueRequest): void;
}

const NAMES: ReadonlyMap<number, string> = new Map([
  [UBLK_IO_OP_READ, "read"],
  [UBLK_IO_OP_WRITE, "write"],
  [UBLK_IO_OP_FLUSH, "flush"],
  [UBLK_IO_OP_DISCARD, "trim"],
  [UBLK_IO_OP_WRITE_ZEROES, "write zeroes"],
]);

export class QueueRequest implements Ranged, Timed, Times {
  /** UBLK_IO_OP_*. */
  operation = 0;
  fua = false;
  /** UBLK_IO_F_NOUNMAP: zeroes must keep their space. */
  noUnmap = false;
  /** Bytes. */
  offset = 0;
  length = 0;
  /** Number of its buffer, which the driver and the device use. */
  buffer: number;
  /** Why the data of a write was not stored: an errno, 0 if it is in its place. */
  refused = 0;
  /** It has arrived, and the driver has no answer yet. */
  open = false;
  /** It was not answered in the turn in which it arrived, and the device still has it or will get it. */
  held = false;
  /** It was answered before the device was done. */
  abandoned = false;
  since = 0;
  arrived = 0;
  begun = 0;
  settled = 0;

  changes = false;
  readonly place = new OrderPlace();

  readonly settle: (status: number) => void;
  readonly #owner: QueueOwner;

  constructor(
    owner: QueueOwner,
    readonly tag: number,
  ) {
    this.buffer = tag;
    this.#owner = owner;
    this.settle = (status) => {
      try {
        owner.settled(this, status);
      } catch (error) {
        owner.failed(error, this);
      }
    };
  }

  get kind(): number {
    switch (this.operation) {
      case UBLK_IO_OP_READ:
        return READ;
      case UBLK_IO_OP_WRITE:
        return this.fua ? FUA_WRITE : WRITE;
      case UBLK_IO_OP_FLUSH:
        return FLUSH;
      case UBLK_IO_OP_DISCARD:
        return TRIM;
      case UBLK_IO_OP_WRITE_ZEROES:
        return ZERO;
      default:
        return OTHER;
    }
  }

  proceed(): void {
    this.#owner.proceed(this);
  }

  /** `write offset 4096 length 8192`. */
  describe(): string {
    const name = NAMES.get(this.operation) ?? `operation ${this.operation}`;
    return `${name} offset ${this.offset} length ${this.length}`;
  }
}
