/**
 * Turning a queue. Its thread sleeps in the kernel until there is a request, or leaves itself to the event loop, which
 * an eventfd wakes: always on the main thread, and while a device that returns promises has requests.
 */
import { eventfd } from "../libc/eventfd.ts";
import { close } from "../libc/file.ts";
import type { Queue } from "./queue.ts";

export class QueueRunner {
  readonly #queue: Queue;
  readonly #mayBlock: boolean;
  readonly #eventfd = eventfd();
  /** Of a file descriptor that is not blocking, the runtime reads what there is, whenever there is something. */
  readonly #wakes = Bun.file(this.#eventfd).stream().getReader();
  readonly #over = Promise.withResolvers<void>();
  #turnDue = false;
  #alive = true;

  /** @param mayBlock the thread has nothing else to do. */
  constructor(queue: Queue, mayBlock: boolean) {
    this.#queue = queue;
    this.#mayBlock = mayBlock;
    queue.wakeBy(this.#eventfd);
    queue.onAnswer = () => this.#scheduleTurn();
  }

  /** Serves until the device is stopped. */
  async run(): Promise<void> {
    try {
      void this.#followWakes().catch(this.#over.reject);
      this.#scheduleTurn();
      await this.#over.promise;
    } finally {
      this.#alive = false;
      await this.#wakes.cancel();
      close(this.#eventfd);
    }
  }

  async #followWakes(): Promise<void> {
    while (this.#alive && !(await this.#wakes.read()).done) this.#turn();
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

  #turn(): void {
    if (!this.#alive) return;
    try {
      this.#alive = this.#mayBlock ? this.#turnWhileBlocking() : this.#turnOnce();
      if (!this.#alive) this.#over.resolve();
    } catch (error) {
      this.#alive = false;
      this.#over.reject(error);
    }
  }

  /** Answers what is there, and submits the answers. */
  #turnOnce(): boolean {
    while (this.#queue.turn(false)) if (!this.#queue.hasAnswers) return true;
    return false;
  }

  /** Sleeps in the kernel for as long as no promise is waited for. */
  #turnWhileBlocking(): boolean {
    while (!this.#queue.waitsForDevice) if (!this.#queue.turn(true)) return false;
    return this.#turnOnce();
  }
}
