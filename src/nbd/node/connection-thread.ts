/** A connection to the kernel on a thread of its own: both sides of it. See queues/thread.ts. */
import type { Dispatch } from "../../dispatch.ts";
import {
  type QueueNews,
  type QueueServing,
  QueueThread,
  type ThreadQueue,
  type Word,
} from "../../queues/thread.ts";
import {
  type ConnectionContext,
  type ConnectionEnd,
  type ConnectionOptions,
  KernelConnection,
  type NodeConnection,
} from "./kernel-connection.ts";

export interface NbdOnThread {
  readonly driver: "nbd";
  readonly queueDepth: number | undefined;
  readonly ring: SharedArrayBuffer;
}

/** What the thread needs. */
interface ThreadContext extends ConnectionContext {
  readonly counters: Float64Array<SharedArrayBuffer>;
}

/** The worker's side. The file of its requests is our end of the stream. */
export function nbdOnThread(
  { queueDepth, ring }: NbdOnThread,
  dispatch: Dispatch,
  { counters, ...serving }: QueueServing,
  { log, ending }: QueueNews,
): ThreadQueue<ConnectionEnd> {
  let connection: KernelConnection | undefined;
  return {
    handOver(fd) {
      const options = { ...serving, queueDepth, log, ownsThread: true };
      connection = new KernelConnection(fd, dispatch, options, { counters, ring, ending });
      // Only the kernel sends anything urgent.
      connection.watchful = false;
    },
    async serve() {
      if (connection === undefined) throw new TypeError("there is no connection to be served");
      return connection.serve();
    },
    tell: (word) => (connection === undefined ? undefined : tell(connection, word)),
    leave: () => connection?.leave(),
    close: () => void connection?.close(),
  };
}

function tell(connection: KernelConnection, word: Word): void | Promise<void> {
  if (word === "pause") return connection.pause();
  if (word === "resume") connection.resume();
  else if (word === "stop") connection.stop();
  else connection.watchful = word === "watch";
}

/** The main thread's side. */
export class ConnectionThread implements NodeConnection {
  usesSocket = false;
  readonly #fd: number;
  readonly #dispatch: Dispatch;
  readonly #options: ConnectionOptions;
  readonly #context: ThreadContext;
  #thread: QueueThread<NbdOnThread, ConnectionEnd> | undefined;
  #isLeft = false;

  /**
   * @param fd our end of the stream; it remains the caller's, who keeps it open while {@link usesSocket}.
   */
  constructor(fd: number, dispatch: Dispatch, options: ConnectionOptions, context: ThreadContext) {
    this.#fd = fd;
    this.#dispatch = dispatch;
    this.#options = options;
    this.#context = context;
  }

  async prepare(): Promise<void> {
    if (this.#isLeft) return;
    const { queueDepth, requestTimeoutMs, busyPollMs, log } = this.#options;
    const { counters, ring, ending } = this.#context;
    const thread = new QueueThread<NbdOnThread, ConnectionEnd>({ log, ending });
    this.#thread = thread;
    const serving = { requestTimeoutMs, busyPollMs, counters };
    await thread.prepare({ driver: "nbd", queueDepth, ring }, this.#dispatch, serving);
  }

  async serve(): Promise<ConnectionEnd> {
    const thread = this.#thread;
    if (thread === undefined || this.#isLeft) return { ending: "stopped", fault: "", left: 0 };
    this.usesSocket = true;
    try {
      await thread.handOver(this.#fd);
      return await thread.ended();
    } finally {
      this.usesSocket = false;
    }
  }

  /** Tells the thread, whose event loop has nothing to do but receive our messages. */
  set watchful(on: boolean) {
    if (this.usesSocket) this.#thread?.tell(on ? "watch" : "rest");
  }

  stop(): void {
    this.#thread?.tell("stop");
  }

  async pause(): Promise<void> {
    await this.#thread?.pause();
  }

  resume(): void {
    this.#thread?.tell("resume");
  }

  leave(): void {
    this.#isLeft = true;
    if (this.usesSocket) this.#thread?.leave();
  }

  close(): Promise<void> {
    return this.#thread?.end() ?? Promise.resolve();
  }
}
