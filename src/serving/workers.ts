/** Starting and ending workers: both sides. */
import { within } from "./deadline.ts";

/** The root of the sources. In the compiled binary all code except the workers is one module, which lies there. */
const SOURCES = new URL(import.meta.url.includes("/$bunfs/") ? "./" : "../", import.meta.url);

/** The path of each worker module from the root of the sources. */
export const WORKERS = {
  claim: "./nodes/claim.worker.ts",
  doIt: "./nbd/node/do-it.worker.ts",
  node: "./nbd/node/node.worker.ts",
  poll: "./nbd/wait/poll.worker.ts",
  queue: "./cli/queue.worker.ts",
  writeBack: "./nodes/write-back.worker.ts",
} as const;

export type WorkerName = keyof typeof WORKERS;

/** The extra entry points of the compiled binary. */
export const WORKER_MODULES: readonly string[] = Object.values(WORKERS);

/** The message that tells a worker to end. */
const END = "end";
/** How long a thread gets to end, in milliseconds: it takes a few. */
const END_LIMIT_MS = 1000;

/**
 * The worker's side: calls `serve` for each request, and ends the thread when told to. The thread ends itself, because
 * the runtime would wait forever for a thread that it terminates while all signals are blocked there.
 */
export function onRequest<Request>(worker: Worker, serve: (request: Request) => void): void {
  worker.addEventListener("message", ({ data }: MessageEvent<Request | typeof END>) => {
    if (data === END) process.exit();
    serve(data);
  });
}

/** A worker that takes requests and answers each with one or more replies. */
export class RequestWorker<Request, Reply> {
  readonly #worker: Worker;
  #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  #replies: Reply[] = [];
  #failure: Error | undefined;
  readonly #gone = Promise.withResolvers<void>();
  #isEnding = false;

  /** Starts the thread; its first reply says that it listens. It does not keep the process alive. */
  constructor(module: WorkerName) {
    this.#worker = new Worker(new URL(WORKERS[module], SOURCES), { ref: false });
    this.#worker.addEventListener("message", (event: MessageEvent<Reply>) => this.#take(event.data));
    this.#worker.addEventListener("error", (event) =>
      this.#fail(new Error(`${module} worker: ${event.message}`)),
    );
    this.#worker.addEventListener("close", () => {
      this.#gone.resolve();
      if (!this.#isEnding) this.#fail(new Error(`${module} worker: it has ended by itself`));
    });
  }

  send(request: Request): void {
    this.#worker.postMessage(request);
  }

  /** The next reply that was not fetched yet. Only one caller may wait at a time. @throws Error if the worker dies. */
  next(): Promise<Reply> {
    const ready = this.#replies.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting = { resolve, reject };
    return promise;
  }

  /**
   * Ends the thread, so that its memory and file descriptors are freed. Settles when it is gone, or after a second if
   * it is in a system call: then it ends once that returns.
   */
  end(): Promise<void> {
    this.#isEnding = true;
    this.#worker.postMessage(END);
    return within(this.#gone.promise, END_LIMIT_MS);
  }

  #take(reply: Reply): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#replies.push(reply);
    else waiting.resolve(reply);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}
