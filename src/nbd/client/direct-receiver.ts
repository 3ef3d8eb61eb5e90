/**
 * Reports when there is something to receive on sockets that the runtime does not read. The runtime receives into newly
 * allocated memory each time, from which we copy: good for short replies, but twice the work for the data of long
 * reads. That is received straight to its place as long as more is to come.
 */
import { ErrnoError } from "../../errors.ts";
import { POLLIN } from "../../uapi/poll.ts";
import { RingPoller } from "../wait/ring-poller.ts";

const KEYS = 2 ** 30;

export class DirectReceiver {
  readonly #poller = new RingPoller(() => this.#turn());
  readonly #waiting = new Map<number, () => void>();
  #key = 0;
  #isClosed = false;

  /** Undefined without io_uring: then the runtime receives everything. */
  static make(): DirectReceiver | undefined {
    try {
      return new DirectReceiver();
    } catch (error) {
      if (error instanceof ErrnoError) return undefined;
      throw error;
    }
  }

  /** Calls `news` once when there is something to receive. Returns the key to {@link forget} it by. */
  watch(fd: number, news: () => void): number {
    this.#key = (this.#key + 1) % KEYS;
    this.#waiting.set(this.#key, news);
    this.#poller.watch(this.#key, fd, POLLIN);
    this.#submit();
    return this.#key;
  }

  /** Call it before the socket is closed. */
  forget(key: number): void {
    if (this.#waiting.delete(key) && !this.#isClosed) this.#poller.forget(key);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#poller.close();
  }

  #turn(): void {
    if (this.#isClosed) return;
    for (let key = this.#poller.take(); key >= 0; key = this.#poller.take()) {
      const news = this.#waiting.get(key);
      this.#waiting.delete(key);
      news?.();
      if (this.#isClosed) return;
    }
    this.#submit();
  }

  #submit(): void {
    if (!this.#poller.submit()) setImmediate(() => this.#turn());
  }
}
