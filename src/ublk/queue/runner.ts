/**
 * Turning a queue. A thread that has nothing else to do sleeps in the kernel until there is a request. The main thread
 * leaves itself to the event loop, which an eventfd wakes; so does any other from the first promise of its device on.
 */
import { Waker } from "../../libc/waker.ts";
import type { Queue } from "./queue.ts";

export class QueueRunner {
  readonly #queue: Queue;
  readonly #over = Promise.withResolvers<void>();
  #turnDue = false;
  #alive = true;

  constructor(queue: Queue) {
    this.#queue = queue;
    queue.onAnswer = () => this.#scheduleTurn();
  }

  /**
   * Serves until the queue ends, on a thread that has nothing else to do.
   * @param busyPollMs milliseconds for which it asks for requests over and over before it sleeps.
   */
  async runAlone(busyPollMs: number): Promise<void> {
    if (this.#turnWhileBlocking(busyPollMs)) await this.run();
  }

  /** Serves until the queue ends, beside whatever else the event loop has to do. */
  async run(): Promise<void> {
    // The runtime watches what it reads all the time: a thread that blocks must have none, or a processor is busy.
    const waker = new Waker(() => this.#turn());
    try {
      this.#queue.wakeBy(waker.fd);
      this.#scheduleTurn();
      await this.#over.promise;
    } finally {
      this.#alive = false;
      await waker.close();
    }
  }

  /** Whatever is answered in this turn of the event loop is submitted at its end. */
  #scheduleTurn(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      this.#turn();
    });
  }

  /** Answers what is there, and submits the answers. */
  #turn(): void {
    if (!this.#alive) return;
    try {
      do this.#alive = this.#queue.turn(false);
      while (this.#alive && this.#queue.hasAnswers);
      if (!this.#alive) this.#over.resolve();
    } catch (error) {
      this.#alive = false;
      this.#over.reject(error);
    }
  }

  /** Returns when a promise is to be waited for, or false when the queue has ended. */
  #turnWhileBlocking(busyPollMs: number): boolean {
    const queue = this.#queue;
    let sleepAt = 0;
    while (!queue.waitsForDevice) {
      if (!queue.turn(busyPollMs === 0 || performance.now() >= sleepAt)) return false;
      if (busyPollMs > 0 && queue.hasAnswers) sleepAt = performance.now() + busyPollMs;
    }
    return true;
  }
}
