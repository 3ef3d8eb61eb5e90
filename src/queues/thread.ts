/**
 * A queue of a device on a thread of its own, whichever driver its requests come from, for devices that any thread can
 * reach: both sides of it. The worker module is the command line's, which knows the devices (see cli/queue.worker.ts).
 */
import type { BlockDevice, SharedDevice } from "../device.ts";
import { Dispatch } from "../dispatch.ts";
import { messageOf } from "../errors.ts";
import { setIoFlusher } from "../libc/process.ts";
import { onRequest, RequestWorker } from "../serving/workers.ts";

/** How a queue is to serve, whichever driver it is of. */
export interface QueueServing {
  readonly requestTimeoutMs: number | undefined;
  readonly busyPollMs: number | undefined;
  /** What it has answered: see counters.ts. */
  readonly counters: Float64Array<SharedArrayBuffer>;
}

/** What the thread is told first. `place` is the driver's own. */
interface SetUp<Place> {
  readonly place: Place;
  readonly serving: QueueServing;
  readonly device: SharedDevice;
  readonly blockSize: number;
  readonly readOnly: boolean;
  /** See Dispatch. */
  readonly shownSize: Float64Array<SharedArrayBuffer>;
}

/**
 * What a queue can be told while it is served. `pause`: to take nothing more, and answer what was begun; `resume`: to
 * go on; `stop`: to take nothing more, and to end when what was begun is answered; `watch`, `rest`: to look after what
 * it is told every few milliseconds, or when it has nothing better to do.
 */
export type Word = "pause" | "resume" | "stop" | "watch" | "rest";

/** Then the file that its requests come from, to be served; or that the queue is not waited for any more. */
type ThreadRequest<Place> = SetUp<Place> | { readonly fd: number } | PauseRequest | PlainWord | "drop";

/** A pause that was taken back may have been answered already: its number tells it from the next one. */
interface PauseRequest {
  readonly pause: number;
}

type PlainWord = Exclude<Word, "pause">;

/**
 * What it tells: that it listens; that it has all it needs; that it has taken the file; that it has paused; what the
 * device said; that it refuses everything from now on, and why; that no more requests come; how it ended, or why it
 * could go no further.
 */
type ThreadReply<End> =
  | { readonly kind: "listening" | "prepared" | "ready" }
  | { readonly kind: "paused"; readonly pause: number }
  | { readonly kind: "ending"; readonly asked: boolean }
  | { readonly kind: "log"; readonly line: string }
  | { readonly kind: "refusing" | "failed"; readonly reason: string }
  | { readonly kind: "ended"; readonly end: End };

/** What a queue tells while it is served. */
export interface QueueNews {
  log(line: string): void;
  /** No more requests come: those that it has are answered, and it ends. @param asked the driver asked for it. */
  ending(asked: boolean): void;
  /** Something has thrown that no method of the device has: everything is answered with EIO until the end. */
  refusing(error: unknown): void;
}

/** A queue as its thread has it. */
export interface ThreadQueue<End> {
  /** Takes the file that its requests come from, which stays the caller's. @throws Error when that is not to be. */
  handOver(fd: number): void;
  /** Serves what has been handed over, until no more requests come and all are answered. */
  serve(): Promise<End>;
  /** Never within a request. After `pause`: settles when it has paused. Absent where the driver tells a queue. */
  tell?(word: Word): void | Promise<void>;
  /** What the device has not answered is not waited for any more. */
  leave?(): void;
  /** Gives everything back, after {@link serve} or instead of it. */
  close(): void;
}

/** Makes the queue of a place, on the thread that will serve it. */
export type MakeQueue<Place, End> = (
  place: Place,
  dispatch: Dispatch,
  serving: QueueServing,
  news: QueueNews,
) => ThreadQueue<End>;

/** Makes the device of a shared one, on this thread. `log` is for what it has to say. */
export type OpenShared = (device: SharedDevice, log: (line: string) => void) => BlockDevice;

/** The worker's side. */
export function serveThread<Place, End>(worker: Worker, open: OpenShared, make: MakeQueue<Place, End>): void {
  const reply = (message: ThreadReply<End>): void => worker.postMessage(message);
  let prepared: Prepared<End> | undefined;
  let isServed = false;
  // What is open stays open for the process when its thread ends.
  const drop = (): void => {
    if (isServed) return prepared?.queue.leave?.();
    prepared?.queue.close();
    const closed = prepared?.close();
    prepared = undefined;
    closed?.catch((error: unknown) => reply({ kind: "log", line: messageOf(error) }));
  };
  onRequest<ThreadRequest<Place>>(worker, (request) => {
    if (request === "drop") return drop();
    if (typeof request === "string") return void prepared?.queue.tell?.(request);
    if ("pause" in request) {
      const { pause } = request;
      void prepared?.queue.tell?.("pause")?.then(() => reply({ kind: "paused", pause }));
      return undefined;
    }
    try {
      if (!("fd" in request)) {
        prepared = prepare(request, open, make, reply);
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
      .then((end) => reply({ kind: "ended", end }))
      .catch((error: unknown) => reply({ kind: "failed", reason: messageOf(error) }))
      // What the device never answers is not for the end of the queue to wait for.
      .then(() => prepared?.close())
      .catch((error: unknown) => reply({ kind: "log", line: messageOf(error) }));
  });
  reply({ kind: "listening" });
}

interface Prepared<End> {
  readonly queue: ThreadQueue<End>;
  /** Until the queue ends, and is closed. */
  readonly serve: () => Promise<End>;
  /** Closes the device, once the queue is closed. */
  readonly close: () => Promise<void>;
}

function prepare<Place, End>(
  setUp: SetUp<Place>,
  open: OpenShared,
  make: MakeQueue<Place, End>,
  reply: (message: ThreadReply<End>) => void,
): Prepared<End> {
  const { place, serving, blockSize, readOnly, shownSize } = setUp;
  const log = (line: string): void => reply({ kind: "log", line });
  // Of a thread, not of the process. That it may fail has been said by the main thread.
  setIoFlusher(true);
  const device = open(setUp.device, log);
  const queue = make(place, new Dispatch(device, { blockSize, readOnly, shownSize, log }), serving, {
    log,
    ending: (asked) => reply({ kind: "ending", asked }),
    refusing: (error) => reply({ kind: "refusing", reason: messageOf(error) }),
  });
  const serve = (): Promise<End> => queue.serve().finally(() => queue.close());
  const closeDevice = async (): Promise<void> => device.close?.();
  return { queue, serve, close: closeDevice };
}

/** What the main thread is told of a queue on a thread of its own. */
export interface ThreadEvents {
  readonly log?: ((line: string) => void) | undefined;
  /** See {@link QueueNews}. */
  readonly ending?: ((asked: boolean) => void) | undefined;
  /** The queue has failed, and answers everything with EIO. */
  readonly refusing?: ((error: Error) => void) | undefined;
}

/** The main thread's side. */
export class QueueThread<Place, End> {
  readonly #worker = new RequestWorker<ThreadRequest<Place>, ThreadReply<End>>("queue");
  readonly #events: ThreadEvents;
  #pauses = 0;
  #onPaused: (() => void) | undefined;

  constructor(events: ThreadEvents) {
    this.#events = events;
  }

  /**
   * Gets all that the queue needs.
   * @param dispatch of a device that can be shared.
   * @throws Error when the thread has failed.
   */
  async prepare(place: Place, dispatch: Dispatch, serving: QueueServing): Promise<void> {
    const { shared: device, blockSize, shownSize, capabilities } = dispatch;
    if (device === undefined) throw new TypeError("the device can be reached by one thread only");
    try {
      await this.#worker.next();
      this.#worker.send({ place, serving, device, blockSize, shownSize, readOnly: !capabilities.write });
      await this.#until("prepared");
    } catch (error) {
      await this.end();
      throw error;
    }
  }

  /**
   * Settles when the queue has taken the file that its requests come from, and is served.
   * @param fd the caller's, to be kept open until the queue has ended.
   * @throws Error when the thread has failed.
   */
  async handOver(fd: number): Promise<void> {
    this.#worker.send({ fd });
    await this.#until("ready");
  }

  /** Settles when the queue has ended. @throws Error when the thread failed. */
  async ended(): Promise<End> {
    return (await this.#until("ended")).end;
  }

  /** Settles when all that was begun is answered, and nothing more is taken. To be called while it is served. */
  pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onPaused = resolve;
    this.#pauses += 1;
    this.#worker.send({ pause: this.#pauses });
    return promise;
  }

  tell(word: PlainWord): void {
    this.#worker.send(word);
  }

  /** What the device has not answered is not waited for any more. */
  leave(): void {
    this.#worker.send("drop");
  }

  /** To be called when the queue has ended, or is not to be served. */
  end(): Promise<void> {
    this.leave();
    return this.#worker.end();
  }

  async #until<Kind extends ThreadReply<End>["kind"]>(
    kind: Kind,
  ): Promise<Extract<ThreadReply<End>, { readonly kind: Kind }>> {
    const isWanted = (reply: ThreadReply<End>): reply is Extract<ThreadReply<End>, { readonly kind: Kind }> =>
      reply.kind === kind;
    for (;;) {
      const reply = await this.#worker.next();
      if (isWanted(reply)) return reply;
      if (reply.kind === "failed") throw threadFailure(reply.reason);
      if (reply.kind === "refusing") this.#events.refusing?.(threadFailure(reply.reason));
      if (reply.kind === "ending") this.#events.ending?.(reply.asked);
      if (reply.kind === "paused" && reply.pause === this.#pauses) this.#onPaused?.();
      if (reply.kind === "log") this.#events.log?.(reply.line);
    }
  }
}

function threadFailure(reason: string): Error {
  return new Error(`a queue's thread failed: ${reason}`);
}
