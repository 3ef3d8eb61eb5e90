/** A queue of a ublk device, with a stand-in for the driver behind it. */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { makeCounters } from "../../src/queues/counters.ts";
import type { QueueOptions } from "../../src/ublk/queue/place.ts";
import type { Queue as QueueType } from "../../src/ublk/queue/queue.ts";
import { until } from "./shell.ts";
import { type Asked, UblkDriver, useFakeRings } from "./ublk-driver.ts";

export const DEPTH = 8;
export const REQUEST_BYTES = 65_536;

interface Place {
  readonly depth?: number;
  readonly index?: number;
  readonly needGetData?: boolean;
  readonly traceRing?: SharedArrayBuffer | undefined;
  /** Default: a new one for the queue. */
  readonly driver?: UblkDriver;
}

/** Gives the queues of a test file stand-ins for rings. Returns how to open one; the device remains the caller's. */
export async function useServedQueues(): Promise<
  (device: BlockDevice, options?: QueueOptions, place?: Place) => ServedQueue
> {
  await useFakeRings();
  const { Queue } = await import("../../src/ublk/queue/queue.ts");
  return (device, options = {}, { depth = DEPTH, index = 0, needGetData = false, ...more } = {}) => {
    const lines: string[] = [];
    const log = (line: string): unknown => lines.push(line);
    const driver = more.driver ?? new UblkDriver(depth, index, needGetData);
    const counters = makeCounters();
    const place = { index, depth, requestBytes: REQUEST_BYTES, needGetData, traceRing: more.traceRing };
    const queue = new Queue(place, new Dispatch(device, { log }), counters, { log, ...options });
    queue.handOver(driver.fd);
    return new ServedQueue(queue, driver, counters, lines);
  };
}

export class ServedQueue {
  constructor(
    readonly queue: QueueType,
    readonly driver: UblkDriver,
    readonly counters: ReturnType<typeof makeCounters>,
    /** The lines that the queue has logged. */
    readonly lines: readonly string[],
  ) {}

  /** Sends a request that is answered at once. Returns the result. */
  answer(...asked: Parameters<UblkDriver["ask"]>): number | undefined {
    this.driver.ask(...asked);
    this.turn();
    return this.resultOf(asked[0]);
  }

  /** The result of the tag's last request; undefined while it is unanswered. */
  resultOf(tag: number): number | undefined {
    return this.driver.isAnswered(tag) ? this.driver.results[tag] : undefined;
  }

  /** Sends one request for each tag from 0 on, in one turn. */
  askAll(...requests: readonly Asked[]): void {
    for (const [tag, request] of requests.entries()) this.driver.ask(tag, request);
    this.turn();
  }

  /** Waits until the first tags have these results. */
  async untilAnswered(...results: readonly number[]): Promise<void> {
    await until("all are answered", () => {
      this.turn();
      return results.every((result, tag) => this.resultOf(tag) === result);
    });
  }

  /** Waits until the device has nothing more to do. */
  async untilSettled(): Promise<void> {
    await until("the device has settled all", () => !this.queue.waitsForDevice);
    this.turn();
  }

  /** Begins requests and submits answers until none are left: more than two turns if the test is delayed. */
  turn(): boolean {
    while (this.queue.turn(false)) if (!this.queue.hasRequests && !this.queue.hasAnswers) return true;
    return false;
  }

  [Symbol.dispose](): void {
    this.queue.close();
    this.driver[Symbol.dispose]();
  }
}
