/** What a queue is told: where it is, and how it is to serve. */
import { UBLK_F_NEED_GET_DATA } from "../../uapi/ublk_cmd.ts";
import type { DeviceInfo } from "../control/device-info.ts";
import type { QueueRequest } from "./request.ts";

/** Where a queue is and what it may use. */
export interface QueuePlace {
  /** Which queue of the device, from 0 on. */
  readonly index: number;
  readonly depth: number;
  /** Bytes of the longest request. */
  readonly requestBytes: number;
  /** The memory for all requests is to be there from the start. */
  readonly populated?: boolean;
  /** An eventfd(2): when something is added to it, all that is in flight or comes is answered with EIO. */
  readonly refuseFd?: number | undefined;
  /** Another: the queue ends, though the driver has its tags still, for a server to come. */
  readonly leaveFd?: number | undefined;
  /** What it answers goes there: see queues/trace-ring.ts. */
  readonly traceRing?: SharedArrayBuffer | undefined;
  /** The device was made with UBLK_F_NEED_GET_DATA: a write comes twice, first to be told where its data is to go. */
  readonly needGetData: boolean;
}

export function queuePlace(info: DeviceInfo, index: number, refuseFd: number, leaveFd: number): QueuePlace {
  const { queueDepth: depth, requestBytes, flags } = info;
  return { index, depth, requestBytes, refuseFd, leaveFd, needGetData: (flags & UBLK_F_NEED_GET_DATA) !== 0 };
}

export interface QueueOptions {
  /** A request that takes longer is answered with EIO. Default: none does. */
  readonly requestTimeoutMs?: number | undefined;
  readonly trace?: ((request: QueueRequest, error: number) => void) | undefined;
  readonly log?: ((line: string) => void) | undefined;
  /**
   * Called once, when something has thrown that no method of the device has. The queue then answers everything with EIO
   * until the device is stopped, which is the caller's to do: a queue that went would leave its requests hanging.
   */
  readonly failed?: ((error: unknown) => void) | undefined;
}
