/** Polls on a thread of its own: see poll.worker.ts. */
import { addTo, eventfd } from "../../libc/eventfd.ts";
import { close } from "../../libc/file.ts";
import { Waker } from "../../libc/waker.ts";
import { RequestWorker } from "../../serving/workers.ts";
import { NumberQueue, sharedQueue } from "./number-queue.ts";
import type { PollReply, PollRequest } from "./poll.worker.ts";
import type { Poller } from "./poller.ts";

const FORGET = -1;
const END = -1;

export class ThreadPoller implements Poller {
  readonly #worker = new RequestWorker<PollRequest, PollReply>("poll");
  readonly #commandFd = eventfd();
  readonly #waker: Waker;
  readonly #commandWords = sharedQueue();
  readonly #newsWords = sharedQueue();
  readonly #commands = new NumberQueue(this.#commandWords);
  readonly #news = new NumberQueue(this.#newsWords);
  #isTold = true;
  /** Settles when the thread has ended as told. */
  #ended: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;

  private constructor(onNews: () => void) {
    this.#waker = new Waker(onNews);
  }

  /** @param onNews is called on the event loop, once for any number of news. */
  static async start(onNews: () => void): Promise<ThreadPoller> {
    const poller = new ThreadPoller(onNews);
    await poller.#worker.next();
    poller.#worker.send({
      commands: poller.#commandWords,
      news: poller.#newsWords,
      commandFd: poller.#commandFd,
      newsFd: poller.#waker.fd,
    });
    poller.#ended = poller.#worker.next().catch((error: Error) => {
      poller.#failure = error;
      onNews();
    });
    return poller;
  }

  watch(key: number, fd: number, events: number): void {
    this.#command(key, fd, events);
  }

  forget(key: number): void {
    this.#command(key, FORGET, FORGET);
    this.submit();
  }

  submit(): boolean {
    if (!this.#isTold) addTo(this.#commandFd);
    this.#isTold = true;
    return true;
  }

  /** @throws Error if the thread has died. */
  take(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#news.isEmpty ? -1 : this.#news.shift();
  }

  async close(): Promise<void> {
    this.#command(END, END, END);
    this.submit();
    await this.#ended;
    await this.#worker.end();
    close(this.#commandFd);
    await this.#waker.close();
  }

  #command(key: number, fd: number, events: number): void {
    this.#commands.push(key, fd, events);
    this.#isTold = false;
  }
}
