/**
 * Waking whoever waits by an eventfd(2), which the kernel can count up where it has no other way to reach a thread:
 * the event loop, or a loop that waits in poll(2) in its place.
 */
import { POLLIN } from "../uapi/poll.ts";
import { negativeErrno } from "./errno.ts";
import { eventfd } from "./eventfd.ts";
import { close } from "./file.ts";
import { libc } from "./library.ts";
import type { PollTable } from "./poll.ts";

/** Those that are open, each in its thread's own list. */
const wakers: Waker[] = [];
/** What an eventfd is read to. */
const count = new Uint8Array(new ArrayBuffer(8));

export class Waker {
  /** The eventfd: whoever adds to it wakes the thread. */
  readonly fd = eventfd();
  readonly wake: () => void;
  readonly #reader = Bun.file(this.fd).stream().getReader();

  /** @param wake is called by the thread that made this, once for any number of additions since it was called last. */
  constructor(wake: () => void) {
    this.wake = wake;
    wakers.push(this);
    void this.#listen();
  }

  /** Closes the eventfd; `wake` is not called any more. */
  async close(): Promise<void> {
    wakers.splice(wakers.indexOf(this), 1);
    await this.#reader.cancel();
    close(this.fd);
  }

  async #listen(): Promise<void> {
    for (;;) {
      const { done } = await this.#reader.read();
      if (done) return;
      this.wake();
    }
  }
}

/** Appends the eventfd of every waker of this thread that the table has room for. */
export function pushWakers(table: PollTable): void {
  for (const waker of wakers) if (!table.full) table.push(waker.fd, POLLIN);
}

/** Wakes those that the table's last wait has found; their entries begin with `first`. Returns how many. */
export function wakeFound(table: PollTable, first: number): number {
  let woken = 0;
  for (let index = first; index < table.count; index += 1) {
    const waker = wakers[index - first];
    if (waker === undefined || table.found(index) === 0) continue;
    negativeErrno(libc.read(waker.fd, count, count.byteLength));
    waker.wake();
    woken += 1;
  }
  return woken;
}
