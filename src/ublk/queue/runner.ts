/**
 * Runs the turns of a queue. A thread that has nothing else to do sleeps in the kernel until there is a request. The
 * main thread relies on the event loop, which an eventfd wakes; so does any other once its device returns a promise.
 */
import { drainMicrotasks } from "bun:jsc";
import { Waker } from "../../libc/waker.ts";
import type { HaltPoll } from "../../serving/halt-poll.ts";
import { SLICE_MS } from "../../serving/time-slice.ts";
import type { Queue } from "./queue.ts";

export class QueueRunner {
  readonly #queue: Queue;
  readonly #poll: HaltPoll;
  readonly #over = Promise.withResolvers<void>();
  #turnDue = false;
  #inTurn = false;
  #alive = true;
  /** Since when there is nothing to do, if that matters; 0 otherwise. */
  #waitingSince = 0;

  /** @param poll how long to poll for requests before sleeping, on a thread of its own or beside the event loop. */
  constructor(queue: Queue, poll: HaltPoll) {
    this.#queue = queue;
    this.#poll = poll;
    queue.onAnswer = () => this.#scheduleTurn();
  }

  /** Serves until the queue ends, on a thread that has nothing else to do. */
  async runAlone(): Promise<void> {
    if (this.#turnWhileBlocking()) await this.run();
  }

  /** Serves until the queue ends, beside whatever else the event loop has to do. */
  async run(): Promise<void> {
    // The runtime polls its descriptors all the time: a thread that blocks must have none, or a processor stays busy.
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

  /** Submits everything answered in this turn of the event loop at its end. */
  #scheduleTurn(): void {
    if (this.#turnDue || this.#inTurn) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      this.#turn();
    });
  }

  /** Answers requests and submits the answers for up to a time slice, then lets others have a turn. */
  #turn(): void {
    if (!this.#alive) return;
    const queue = this.#queue;
    const until = performance.now() + SLICE_MS;
    this.#inTurn = true;
    try {
      do this.#serve();
      while (this.#alive && (queue.hasAnswers || this.#askOn()) && performance.now() < until);
      if (!this.#alive) return this.#over.resolve();
      if (queue.hasAnswers) queue.submit(false);
    } catch (error) {
      this.#alive = false;
      this.#over.reject(error);
    } finally {
      this.#inTurn = false;
    }
    // The eventfd has already signalled these.
    if (this.#alive && queue.hasRequests) this.#scheduleTurn();
  }

  #serve(): void {
    const queue = this.#queue;
    queue.submit(false);
    if (this.#waitingSince !== 0 && queue.hasRequests) {
      this.#poll.waited(performance.now() - this.#waitingSince, true);
      this.#waitingSince = 0;
    }
    this.#alive = queue.begin();
    // A promise that has already settled counts as an answer.
    if (queue.waitsForDevice) drainMicrotasks();
  }

  /** Polls: whether a request arrives before sleeping pays. Called once after everything is answered. */
  #askOn(): boolean {
    const queue = this.#queue;
    if (queue.hasRequests || queue.waitsForDevice || this.#waitingSince !== 0) return queue.hasRequests;
    const began = performance.now();
    for (let tookMs = 0; tookMs < this.#poll.limitMs; tookMs = performance.now() - began) {
      queue.submit(false);
      if (!queue.hasRequests) continue;
      this.#poll.waited(performance.now() - began, false);
      return true;
    }
    this.#waitingSince = began;
    return false;
  }

  /** Returns true when there is a promise to wait for, or false when the queue has ended. */
  #turnWhileBlocking(): boolean {
    const queue = this.#queue;
    while (!queue.waitsForDevice) {
      this.#wait();
      if (!queue.begin()) return false;
    }
    return true;
  }

  /** Submits the answers, and returns when there are requests: it polls first, and then sleeps. */
  #wait(): void {
    const queue = this.#queue;
    const poll = this.#poll;
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
