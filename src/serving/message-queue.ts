/** Messages for a reader that must never be waited for: it may be slow, stopped, or never read at all. */
import { errno } from "../uapi/errno.ts";

/** How much is kept for a reader that is behind, in bytes. Beyond that, messages are dropped and counted. */
const PENDING_MAX = 64 * 1024;
/** How often to try a reader again that is behind, in milliseconds. */
const AGAIN_MS = 250;
/** The same at the end, when there is nothing else to do. */
const AGAIN_AT_END_MS = 10;

const encoder = new TextEncoder();

export class MessageQueue {
  readonly #send: (message: Uint8Array) => number;
  readonly #notice: (lost: number) => string;
  readonly #pendingMax: number;
  /** The first one may have been sent in part. */
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** Messages lost since the last notice. */
  #lost = 0;
  #timer: Timer | undefined;

  /**
   * @param send returns at once how many bytes were taken, or -errno: -EAGAIN where the reader is behind.
   * @param notice makes the message that stands for those that were lost.
   * @param pendingMax in bytes: less for a reader that takes little at a time.
   */
  constructor(
    send: (message: Uint8Array) => number,
    notice: (lost: number) => string,
    pendingMax = PENDING_MAX,
  ) {
    this.#pendingMax = pendingMax;
    this.#send = send;
    this.#notice = notice;
  }

  /** Sends the message now, or later, or never. */
  push(message: string): void {
    this.#drain();
    const bytes = encoder.encode(message);
    const hasRoom = this.#pendingBytes === 0 || this.#pendingBytes + bytes.byteLength <= this.#pendingMax;
    if (this.#lost > 0 || !hasRoom) {
      this.#lost += 1;
      return;
    }
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.byteLength;
    this.#drain();
  }

  /** Closes it. A reader that is behind gets this much time first, in milliseconds. */
  async finish(limitMs: number): Promise<void> {
    const until = performance.now() + limitMs;
    while (!this.#drain() && performance.now() < until) await Bun.sleep(AGAIN_AT_END_MS);
    this.close();
  }

  /** Tries once more, and drops what is not taken. */
  close(): void {
    this.#drain();
    this.#pending = [];
    this.#pendingBytes = 0;
    clearTimeout(this.#timer);
  }

  /**
   * Sends what is pending, and then the notice of lost messages, as far as the reader takes them. Returns false if the
   * reader is behind.
   */
  #drain(): boolean {
    for (let first = this.#pending[0]; first !== undefined; first = this.#pending[0]) {
      const taken = this.#trySend(first);
      if (taken === 0) return false;
      if (taken < 0) this.#lost += 1;
      this.#pending.shift();
      this.#pendingBytes -= first.byteLength;
      if (taken > 0) this.#keepRest(first, taken);
    }
    if (this.#lost === 0) return true;
    const notice = encoder.encode(this.#notice(this.#lost));
    const taken = this.#trySend(notice);
    if (taken <= 0) return taken < 0;
    this.#lost = 0;
    this.#keepRest(notice, taken);
    return this.#pending.length === 0;
  }

  #keepRest(message: Uint8Array, taken: number): void {
    if (taken === message.byteLength) return;
    this.#pending.unshift(message.subarray(taken));
    this.#pendingBytes += message.byteLength - taken;
  }

  /** Returns how many bytes were taken, 0 if the reader is behind, or -errno if sending fails. */
  #trySend(message: Uint8Array): number {
    const taken = this.#send(message);
    if (taken !== -errno.EAGAIN && taken !== -errno.EINTR && taken !== 0) return taken;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#drain();
    }, AGAIN_MS).unref();
    return 0;
  }
}
