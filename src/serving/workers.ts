/** Starting workers. */

/** The root of the sources: of the compiled binary all code but the workers is one module, which lies there. */
const SOURCES = new URL(import.meta.url.includes("/$bunfs/") ? "./" : "../", import.meta.url);

/** The worker modules, by their path from the root of the sources. */
const WORKERS = {
  doIt: "./nbd/node/do-it.worker.ts",
  node: "./nbd/node/node.worker.ts",
  queue: "./cli/queue.worker.ts",
  writeBack: "./nodes/write-back.worker.ts",
} as const;

/** The extra entry points of the compiled binary. */
export const WORKER_MODULES: readonly string[] = Object.values(WORKERS);

/** A worker that takes requests and answers each with one or more replies. */
export class RequestWorker<Request, Reply> {
  readonly #worker: Worker;
  #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  #replies: Reply[] = [];
  #failure: Error | undefined;

  /** Starts the thread; its first reply says that it listens. It does not keep the process alive. */
  constructor(module: keyof typeof WORKERS) {
    this.#worker = new Worker(new URL(WORKERS[module], SOURCES), { ref: false });
    this.#worker.addEventListener("message", (event: MessageEvent<Reply>) => this.#take(event.data));
    this.#worker.addEventListener("error", (event) =>
      this.#fail(new Error(`${module} worker: ${event.message}`)),
    );
  }

  send(request: Request): void {
    this.#worker.postMessage(request);
  }

  /** The next reply that nobody has had. One caller waits at a time. @throws Error when the worker dies. */
  next(): Promise<Reply> {
    const ready = this.#replies.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting = { resolve, reject };
    return promise;
  }

  #take(reply: Reply): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#replies.push(reply);
    else waiting.resolve(reply);
  }

  #fail(error: Error): void {
    this.#failure = error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}
