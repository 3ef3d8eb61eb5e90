/** The memory of a connection that only its own thread uses: received bytes, and reply headers. */
import { Memory } from "../../libc/memory.ts";
import type { Clock } from "../../serving/clock.ts";
import { Inbox, INBOX_BYTES } from "./inbox.ts";
import { REPLY_BYTES, ReplyBatch } from "./reply-batch.ts";

export class ConnectionMemory {
  readonly inbox: Inbox;
  readonly replies: ReplyBatch;
  readonly #arena = new Memory(INBOX_BYTES + REPLY_BYTES);

  /**
   * @param structured the peer has asked for structured replies.
   * @throws ErrnoError ENOMEM
   */
  constructor(structured: boolean, clock: Clock, busyPollMs: number | undefined) {
    const bytes = this.#arena.bytes();
    const { address } = this.#arena;
    this.inbox = new Inbox(address, bytes.subarray(0, INBOX_BYTES), clock, busyPollMs);
    this.replies = new ReplyBatch(address + INBOX_BYTES, bytes.subarray(INBOX_BYTES), structured);
  }

  /** None of it may be used afterwards. */
  close(): void {
    this.replies.discard();
    this.#arena.close();
  }
}
