/**
 * Queues of numbers in shared memory, between a thread that polls and the one that it polls for. There is one for each
 * direction, with an eventfd that says that it is not empty. Each has one writer and one reader.
 */
import assert from "node:assert";

/** Words of a command to the thread: a key, a file descriptor, POLL flags; flags of -1 mean to forget the key. */
export const COMMAND_WORDS = 3;
/** Numbers in each queue: each member is watched and forgotten at most twice between two reads. */
const CAPACITY = 2 ** 15;
const HEAD = 0;
const TAIL = 1;
const NUMBERS = 2;

export function sharedQueue(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(4 * (NUMBERS + CAPACITY)));
}

/** A queue of numbers between two threads. */
export class NumberQueue {
  readonly #words: Int32Array;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  get isEmpty(): boolean {
    return Atomics.load(this.#words, HEAD) === Atomics.load(this.#words, TAIL);
  }

  /** The reader sees all of them at once, or none. */
  push(...values: readonly number[]): void {
    const head = Atomics.load(this.#words, HEAD);
    let tail = Atomics.load(this.#words, TAIL);
    for (const value of values) {
      this.#words[NUMBERS + tail] = value;
      tail = (tail + 1) % CAPACITY;
      assert(tail !== head, "the queue of a poller is full");
    }
    Atomics.store(this.#words, TAIL, tail);
  }

  /** The oldest number. The queue must not be empty. */
  shift(): number {
    const head = Atomics.load(this.#words, HEAD);
    const value = this.#words[NUMBERS + head] ?? 0;
    Atomics.store(this.#words, HEAD, (head + 1) % CAPACITY);
    return value;
  }
}
