/** The memory of a tight connection: what comes in, reply headers, payloads that go neither way straight. */
import { Memory } from "../../libc/memory.ts";
import { Inbox, INBOX_BYTES } from "./inbox.ts";
import { REPLY_BYTES, ReplyBatch } from "./reply-batch.ts";
import { Staging, STAGING_BYTES, type StagingBudget } from "./staging.ts";

const REPLIES_AT = INBOX_BYTES;
const STAGING_AT = REPLIES_AT + REPLY_BYTES;

export class ConnectionMemory {
  readonly inbox: Inbox;
  readonly replies: ReplyBatch;
  readonly staging: Staging;
  readonly #arena = new Memory(STAGING_AT + STAGING_BYTES);

  /** @param structured the peer has asked for structured replies. */
  constructor(structured: boolean, budget: StagingBudget | undefined) {
    const bytes = this.#arena.bytes();
    const { address } = this.#arena;
    this.inbox = new Inbox(address, bytes.subarray(0, REPLIES_AT));
    this.replies = new ReplyBatch(address + REPLIES_AT, bytes.subarray(REPLIES_AT, STAGING_AT), structured);
    this.staging = new Staging(this.#arena, STAGING_AT, budget);
  }

  /** Nothing of it must be touched afterwards, by a device either. */
  close(): void {
    this.staging.shrink();
    this.#arena.close();
  }
}
