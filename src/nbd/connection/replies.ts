/** Answers requests: queues the reply, counts and traces it, and frees what the request holds. */
import { NBD_CMD_READ } from "../../uapi/nbd.ts";
import { NBD_CMD_FLAG_REQ_ONE } from "../wire/numbers.ts";
import type { Account } from "./account.ts";
import type { HeldRequests } from "./held-requests.ts";
import type { ReplyBatch } from "./reply-batch.ts";
import type { Answer, Request } from "./request.ts";

export class Replies {
  readonly #account: Account;
  readonly #batch: ReplyBatch;

  constructor(batch: ReplyBatch, account: Account) {
    this.#batch = batch;
    this.#account = account;
  }

  /** Answers a READ with data at an address in the device's memory. */
  data(request: Request, address: number): void {
    this.#batch.data(request, address, undefined);
    this.#account.answered(request, 0);
  }

  /** Answers with what the device has said. The request has no payload afterwards. */
  answer(request: Request, answer: Answer): void {
    const batch = this.#batch;
    const { buffer } = request;
    if (typeof answer !== "number") {
      batch.extents(request, (request.flags & NBD_CMD_FLAG_REQ_ONE) === 0 ? answer : answer.slice(0, 1));
    } else if (request.command === NBD_CMD_READ && answer === 0 && buffer !== undefined) {
      batch.data(request, buffer.address, buffer);
      request.buffer = undefined;
    } else {
      batch.status(request, answer);
    }
    this.#account.answered(request, typeof answer === "number" ? answer : 0);
    if (request.buffer !== undefined) request.releaseBuffer();
  }

  /** Answers settled requests, as many as the batch can take. */
  answerSettled(held: HeldRequests): void {
    while (held.hasSettled && !this.#batch.isFull) {
      const request = held.takeSettled();
      if (request === undefined) return;
      this.answer(request, request.answer);
      held.recycle(request);
    }
  }
}
