/**
 * Wakes the event loop, or a loop that waits in poll(2) in its place, by an eventfd(2). The kernel can add to an
 * eventfd where it has no other way to reach a thread.
 */
import { POLLIN } from "../uapi/poll.ts";
import { drain, eventfd } from "./eventfd.ts";
import { close } from "./file.ts";
import type { PollTable } from "./poll.ts";

/** The open wakers of this thread: each thread has its own list. */
const wakers: Waker[] = [];

/** The total number of times that any of them was woken. */
let wakes = 0;

export class Waker {
  /** The eventfd: adding to it wakes the thread. */
  readonly fd = eventfd();
  readonly wake: () => void;
  readonly #reader = Bun.file(this.fd).stream().getReader();

  /** @param wake is called on the thread that made this, once for any number of additions since the last call. */
  constructor(wake: () => void) {
    this.wake = wake;
    wakers.push(this);
    void this.#listen();
  }

  /** Closes the eventfd; `wake` is no longer called. */
  async close(): Promise<void> {
    const index = wakers.indexOf(this);
    if (index < 0) return;
    wakers.splice(index, 1);
    await this.#reader.cancel();
    close(this.fd);
  }

  async #listen(): Promise<void> {
    for (;;) {
      const { done } = await this.#reader.read();
      if (done) return;
      wakes += 1;
      this.wake();
    }
  }
}

/** Appends the eventfds of this thread's wakers, as far as the table has room. */
export function pushWakers(table: PollTable): void {
  for (const waker of wakers) if (!table.full) table.push(waker.fd, POLLIN);
}

/** How often wakers of this thread were woken, by either loop. */
export function countWakes(): number {
  return wakes;
}

/** Wakes those that the table's last wait found; their entries begin at `first`. Returns how many. */
export function wakeFound(table: PollTable, first: number): number {
  let woken = 0;
  for (let index = first; index < table.count; index += 1) {
    const waker = wakers[index - first];
    if (waker === undefined || table.found(index) === 0) continue;
    drain(waker.fd);
    wakes += 1;
    waker.wake();
    woken += 1;
  }
  return woken;
}
