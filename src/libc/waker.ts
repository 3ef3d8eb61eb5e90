/** Waking the event loop by an eventfd(2), which the kernel can count up where it has no other way to reach it. */
import { eventfd } from "./eventfd.ts";
import { close } from "./file.ts";

export class Waker {
  /** The eventfd: whoever adds to it wakes the event loop. */
  readonly fd = eventfd();
  readonly #reader = Bun.file(this.fd).stream().getReader();

  /** @param wake is called on the event loop, once for any number of additions since it was called last. */
  constructor(wake: () => void) {
    void this.#listen(wake);
  }

  /** Closes the eventfd; `wake` is not called any more. */
  async close(): Promise<void> {
    await this.#reader.cancel();
    close(this.fd);
  }

  async #listen(wake: () => void): Promise<void> {
    for (;;) {
      const { done } = await this.#reader.read();
      if (done) return;
      wake();
    }
  }
}
