/**
 * Turning a queue. A thread that has nothing else to do sleeps in the kernel until there is a request. The main thread
 * leaves itself to the event loop, which an eventfd wakes; so does any other from the first promise of its device on.
 */
import { Waker } from "../../libc/waker.ts";
import type { HaltPoll } from "../../serving/halt-poll.ts";
import { SLICE_MS } from "../../serving/time-slice.ts";
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

  /** Serves until the queue ends, on a thread that has nothing else to do. */
  async runAlone(poll: HaltPoll): Promise<void> {
    if (this.#turnWhileBlocking(poll)) await this.run();
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

  /** Answers what is there and submits the answers, for as long as a time slice: then it is the others' turn. */
  #turn(): void {
    if (!this.#alive) return;
    const queue = this.#queue;
    const until = performance.now() + SLICE_MS;
    try {
      do this.#alive = queue.turn(false);
      while (this.#alive && queue.hasAnswers && performance.now() < until);
      if (!this.#alive) return this.#over.resolve();
      if (queue.hasAnswers) queue.submit(false);
      // Of these the eventfd has told already.
      if (queue.hasRequests) this.#scheduleTurn();
    } catch (error) {
      this.#alive = false;
      this.#over.reject(error);
    }
  }

  /** Returns when a promise is to be waited for, or false when the queue has ended. */
  #turnWhileBlocking(poll: HaltPoll): boolean {
    const queue = this.#queue;
    while (!queue.waitsForDevice) {
      this.#wait(poll);
      if (!queue.begin()) return false;
    }
    return true;
  }

  /** Submits the answers, and returns when there are requests: it asks for them first, and then sleeps. */
  #wait(poll: HaltPoll): void {
    const queue = this.#queue;
    const began = performance.now();
    let tookMs = 0;
    let sleeps: boolean;
    do {
      sleeps = tookMs >= poll.limitMs;
      queue.submit(sleeps);
      tookMs = performance.now() - began;
      if (queue.hasRequests) return poll.waited(tookMs, sleeps);
    } while (!sleeps);
  }
}
