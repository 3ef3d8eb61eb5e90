/** Where a queue is, and how it serves. */
import { UBLK_F_NEED_GET_DATA } from "../../uapi/ublk_cmd.ts";
import type { DeviceInfo } from "../control/device-info.ts";
import type { QueueRequest } from "./request.ts";

/** Where a queue is and what it may use. */
export interface QueuePlace {
  /** The number of the queue in its device, from 0. */
  readonly index: number;
  readonly depth: number;
  /** Bytes of the longest request. */
  readonly requestBytes: number;
  /** Allocate the memory for all requests at the start. */
  readonly populated?: boolean;
  /** An eventfd(2): adding to it makes the queue answer all requests, also those in flight, with EIO. */
  readonly refuseFd?: number | undefined;
  /** Another one: adding to it ends the queue, while the driver keeps its tags for the next server. */
  readonly leaveFd?: number | undefined;
  /** Where its answered requests go: see queues/trace-ring.ts. */
  readonly traceRing?: SharedArrayBuffer | undefined;
  /** The device was made with UBLK_F_NEED_GET_DATA: a write comes twice, first to ask where its data goes. */
  readonly needGetData: boolean;
}

export function queuePlace(info: DeviceInfo, index: number, refuseFd: number, leaveFd: number): QueuePlace {
  const { queueDepth: depth, requestBytes, flags } = info;
  return { index, depth, requestBytes, refuseFd, leaveFd, needGetData: (flags & UBLK_F_NEED_GET_DATA) !== 0 };
}

export interface QueueOptions {
  /** A request that takes longer is answered with EIO. Default: no limit. */
  readonly requestTimeoutMs?: number | undefined;
  readonly trace?: ((request: QueueRequest, error: number) => void) | undefined;
  readonly log?: ((line: string) => void) | undefined;
  /**
   * Called once, when something other than a method of the device has thrown. The queue then answers everything with
   * EIO until the caller stops the device: if the queue ended, its requests would hang.
   */
  readonly failed?: ((error: unknown) => void) | undefined;
}
