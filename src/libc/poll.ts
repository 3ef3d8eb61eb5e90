/** poll(2) on a table that is filled without allocating. */
import { pollfd } from "../uapi/poll.ts";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

const HALVES_PER_ENTRY = pollfd.size / 2;
const WORDS_PER_ENTRY = pollfd.size / 4;

export class PollTable {
  count = 0;
  readonly #words: Int32Array;
  readonly #halves: Int16Array;

  constructor(readonly capacity: number) {
    this.#words = new Int32Array(new ArrayBuffer(capacity * pollfd.size));
    this.#halves = new Int16Array(this.#words.buffer);
  }

  get full(): boolean {
    return this.count === this.capacity;
  }

  clear(): void {
    this.count = 0;
  }

  /** Appends a file descriptor and what to wait for: POLL flags, 0 for its end only. The table must not be full. */
  push(fd: number, events: number): void {
    this.#words[this.count * WORDS_PER_ENTRY] = fd;
    this.#halves[this.count * HALVES_PER_ENTRY + pollfd.events / 2] = events;
    this.#halves[this.count * HALVES_PER_ENTRY + pollfd.revents / 2] = 0;
    this.count += 1;
  }

  /** What the last {@link wait} found for an entry: POLL flags, 0 for nothing. */
  found(index: number): number {
    return this.#halves[index * HALVES_PER_ENTRY + pollfd.revents / 2] ?? 0;
  }

  /**
   * Waits for any of the entries for up to `milliseconds`. Returns how many were found, 0 for none, or -errno: a
   * signal always ends the wait with -EINTR (signal(7)).
   */
  wait(milliseconds: number): number {
    return negativeErrno(libc.poll(this.#words, this.count, milliseconds));
  }
}
