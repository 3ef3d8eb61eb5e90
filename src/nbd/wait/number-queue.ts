/**
 * What the thread that polls and the one that it polls for share: queues of numbers in shared memory, one for each
 * direction, and an eventfd for each that says that there is something in it. Each has one writer and one reader.
 */
import assert from "node:assert";

/** What the thread is told: a key, a file descriptor, POLL flags; to forget a key has flags of -1. */
export const COMMAND_WORDS = 3;
/** Numbers in each queue: every member is watched twice and forgotten twice at most between two looks. */
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
