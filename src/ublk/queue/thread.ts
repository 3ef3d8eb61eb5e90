/**
 * A queue on a thread of its own, for devices that any thread can reach: both sides of it. The worker module is the
 * command line's, which knows the devices (see cli/queue.worker.ts).
 */
import type { BlockDevice, SharedDevice } from "../../device.ts";
import { Dispatch } from "../../dispatch.ts";
import { messageOf } from "../../errors.ts";
import { setIoFlusher } from "../../libc/process.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import { onRequest, RequestWorker } from "../../serving/workers.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";

/** What the thread is told first. */
export interface QueueThreadSetUp {
  readonly place: QueuePlace;
  readonly device: SharedDevice;
  readonly blockSize: number;
  readonly readOnly: boolean;
  readonly requestTimeoutMs: number | undefined;
  readonly busyPollMs: number | undefined;
  readonly counters: Float64Array<SharedArrayBuffer>;
}

/** Then /dev/ublkcN: all tags are to be handed over, and the queue to be served; or that it is not to be. */
export type QueueThreadRequest = QueueThreadSetUp | { readonly fd: number } | "drop";

/**
 * What it tells: that it listens; that it has all it needs; that all tags are with the driver; what the device said;
 * that it refuses everything from now on, and why; and its end, or why it could go no further.
 */
export type QueueThreadReply =
  | { readonly kind: "listening" | "prepared" | "ready" | "ended" }
  | { readonly kind: "log"; readonly line: string }
  | { readonly kind: "refusing" | "failed"; readonly reason: string };

/** Makes the device of a shared one, on this thread. `log` is for what it has to say. */
export type OpenShared = (device: SharedDevice, log: (line: string) => void) => BlockDevice;

/** The worker's side. */
export function serveQueueThread(worker: Worker, open: OpenShared): void {
  const reply = (message: QueueThreadReply): void => worker.postMessage(message);
  let prepared: Prepared | undefined;
  let isServed = false;
  // What is open stays open for the process when its thread ends.
  const drop = (): void => {
    if (isServed && prepared?.queue.hasLeft === true) return prepared.queue.close();
    const dropped = isServed ? undefined : prepared?.drop();
    dropped?.catch((error: unknown) => reply({ kind: "log", line: messageOf(error) }));
  };
  onRequest<QueueThreadRequest>(worker, (request) => {
    if (request === "drop") return drop();
    try {
      if (!("fd" in request)) {
        prepared = prepare(request, open, reply);
        return reply({ kind: "prepared" });
      }
      prepared?.queue.handOver(request.fd);
      isServed = true;
      reply({ kind: "ready" });
    } catch (error) {
      return reply({ kind: "failed", reason: messageOf(error) });
    }
    prepared
      ?.serve()
      .then(() => reply({ kind: "ended" }))
      .catch((error: unknown) => reply({ kind: "failed", reason: messageOf(error) }));
  });
  reply({ kind: "listening" });
}

interface Prepared {
  readonly queue: Queue;
  /** Until the queue ends. */
  readonly serve: () => Promise<void>;
  /** Instead. */
  readonly drop: () => Promise<void>;
}

function prepare(
  setUp: QueueThreadSetUp,
  open: OpenShared,
  reply: (message: QueueThreadReply) => void,
): Prepared {
  const { place, blockSize, readOnly, requestTimeoutMs, busyPollMs, counters } = setUp;
  const log = (line: string): void => reply({ kind: "log", line });
  // Of a thread, not of the process. That it may fail has been said by the main thread.
  setIoFlusher(true);
  const device = open(setUp.device, log);
  const queue = new Queue(place, new Dispatch(device, { blockSize, readOnly, log }), counters, {
    requestTimeoutMs,
    log,
    failed: (error) => reply({ kind: "refusing", reason: messageOf(error) }),
  });
  const serve = async (): Promise<void> => {
    try {
      await new QueueRunner(queue, new HaltPoll(busyPollMs)).runAlone();
    } finally {
      if (!queue.hasLeft) queue.close();
    }
    await device.close?.();
  };
  const drop = async (): Promise<void> => {
    queue.close();
    await device.close?.();
  };
  return { queue, serve, drop };
}

/** The main thread's side. */
export class QueueThread {
  readonly #worker = new RequestWorker<QueueThreadRequest, QueueThreadReply>("queue");
  readonly #log: (line: string) => void;
  readonly #failed: (error: Error) => void;

  /** @param failed is called when the queue has failed, and answers everything with EIO. */
  constructor(log: ((line: string) => void) | undefined, failed: (error: Error) => void) {
    this.#log = log ?? (() => undefined);
    this.#failed = failed;
  }

  /** Gets all that the queue needs. @throws Error when the thread has failed. */
  async prepare(setUp: QueueThreadSetUp): Promise<void> {
    try {
      await this.#worker.next();
      this.#worker.send(setUp);
      await this.#until("prepared");
    } catch (error) {
      await this.end();
      throw error;
    }
  }

  /** Settles when all tags are with the driver, and the queue is served. @throws Error when the thread has failed. */
  async handOver(fd: number): Promise<void> {
    this.#worker.send({ fd });
    await this.#until("ready");
  }

  /** Settles when the device has been stopped. @throws Error when the thread failed. */
  ended(): Promise<void> {
    return this.#until("ended");
  }

  /** To be called when the queue has ended, or is not to be served. */
  end(): Promise<void> {
    this.#worker.send("drop");
    return this.#worker.end();
  }

  async #until(kind: QueueThreadReply["kind"]): Promise<void> {
    for (;;) {
      const reply = await this.#worker.next();
      if (reply.kind === kind) return;
      if (reply.kind === "failed") throw new Error(`a queue's thread failed: ${reply.reason}`);
      if (reply.kind === "refusing") this.#failed(new Error(`a queue's thread failed: ${reply.reason}`));
      if (reply.kind === "log") this.#log(reply.line);
    }
  }
}
