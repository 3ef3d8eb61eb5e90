/**
 * The requests of a connection that are not answered as soon as they are decoded: the device has returned a promise, or
 * they wait for others that touch the same bytes. They are answered as they settle.
 *
 * If the device does not answer a request in time, it is answered in the device's place. The device keeps the buffer,
 * and the range stays locked, until it answers.
 */
import { errno } from "../../uapi/errno.ts";
import { NBD_CMD_BLOCK_STATUS } from "../wire/numbers.ts";
import { changesData, isFua, performWithoutPayload } from "../wire/rules.ts";
import { type Answer, Request, type RequestOwner } from "./request.ts";
import type { Service } from "./service.ts";
import { NBD_CMD_READ } from "../../uapi/nbd.ts";

const QUEUE_DEPTH = 128;

export class HeldRequests implements RequestOwner {
  /** How many are held, or have settled and are not taken yet. */
  count = 0;
  /** How many have been answered although the device still has them. */
  abandoned = 0;
  readonly #service: Service;
  readonly #queueDepth: number;
  readonly #news: () => void;
  /** The beginning of lines in the log. */
  readonly #about: string;
  readonly #spare: Request[] = [];
  /** Those that have settled, linked by age. */
  #firstSettled: Request | undefined;
  #lastSettled: Request | undefined;
  #closed = false;
  #hung = false;

  /**
   * @param news called when a request has settled.
   * @param name of the peer, if it has one.
   */
  constructor(service: Service, news: () => void, name: string | undefined) {
    this.#service = service;
    this.#about = name === undefined ? "" : `${name}: `;
    this.#queueDepth = service.options.queueDepth ?? QUEUE_DEPTH;
    this.#news = news;
  }

  /** Whether there is one to take. */
  get hasSettled(): boolean {
    return this.#firstSettled !== undefined;
  }

  /** Whether the device has as many requests as it may have at once. */
  get isFull(): boolean {
    return this.count >= this.#queueDepth;
  }

  /** Whether the device answers nothing, and so gets no more requests. Logs a line when that begins. */
  checkHung(): boolean {
    const { order, unanswering } = this.#service;
    const hangs = this.abandoned >= this.#queueDepth || order.isFull;
    if (hangs && !this.#hung) {
      const count = order.isFull ? order.size : this.abandoned;
      unanswering.say(
        `${this.#about}the device does not answer ${count} requests: all others fail with EIO until it does`,
      );
    }
    this.#hung = hangs;
    return hangs;
  }

  /** An unused request. */
  make(): Request {
    return this.#spare.pop() ?? new Request(this);
  }

  /** Takes back a request that is no longer used. */
  recycle(request: Request): void {
    if (request.buffer !== undefined) request.releaseBuffer();
    if (this.#spare.length < this.#queueDepth) this.#spare.push(request);
  }

  /** Whether nothing blocks the request. */
  goesAhead(request: Request): boolean {
    const { order } = this.#service;
    if (order.size === 0) return true;
    request.changes = changesData(request);
    return order.isFree(request);
  }

  /** Gives the request to the device. Returns the answer, or undefined if it is held: `news` follows. */
  start(request: Request): Answer | undefined {
    if (!this.goesAhead(request)) {
      this.#hold(request);
      this.#service.order.wait(request);
      return undefined;
    }
    return this.promised(request, this.#perform(request));
  }

  /** Likewise, for a write whose bytes are already in the device's memory. */
  complete(request: Request): Answer | undefined {
    const { offset, length } = request;
    const { clock, dispatch } = this.#service;
    const fua = isFua(request);
    request.begun = clock.now;
    const answer = dispatch.completeWrite(offset, length, fua);
    // Everything but a flush is too short to be worth reading the clock.
    request.settled = fua ? clock.read() : clock.now;
    return this.promised(request, answer);
  }

  /** Gives up a write whose payload will not arrive completely. */
  giveUpWrite(request: Request): void {
    const isInMemory = request.refused === 0 && request.buffer === undefined;
    if (isInMemory) this.#service.dispatch.landed(request.offset, request.length);
    request.releaseBuffer();
  }

  /** Likewise, for a request that the device already has. */
  promised(request: Request, answer: Answer | Promise<Answer>): Answer | undefined {
    if (!(answer instanceof Promise)) return answer;
    this.#hold(request);
    request.changes = changesData(request);
    this.#service.order.insert(request);
    void answer.then(request.settle);
    return undefined;
  }

  /** Takes the one that settled first. The caller must recycle it. */
  takeSettled(): Request | undefined {
    const first = this.#firstSettled;
    if (first === undefined) return undefined;
    this.#firstSettled = first.next;
    if (first.next === undefined) this.#lastSettled = undefined;
    first.next = undefined;
    this.count -= 1;
    return first;
  }

  /** Ignores everything that settles from now on. */
  close(): void {
    this.#closed = true;
    for (let left = this.takeSettled(); left !== undefined; left = this.takeSettled()) this.recycle(left);
  }

  // --- what requests tell ---

  proceed(request: Request): void {
    // It was abandoned while it waited, or the peer is gone: too late to begin.
    if (request.abandoned || this.#closed) return this.settled(request, errno.EIO);
    const answer = this.#perform(request);
    if (answer instanceof Promise) void answer.then(request.settle);
    else this.settled(request, answer);
  }

  settled(request: Request, answer: Answer): void {
    const isLate = request.abandoned || this.#closed;
    request.settled = this.#service.clock.read();
    this.#service.watchdog?.release(request);
    // Requests that waited for it may settle at once, but come after it.
    if (!isLate) this.#queue(request, answer);
    this.#service.order.remove(request);
    if (isLate) {
      if (request.abandoned) this.abandoned -= 1;
      else this.count -= 1;
      request.abandoned = false;
      this.recycle(request);
    }
    this.#news();
  }

  gaveUp(request: Request): void {
    if (this.#closed) return;
    // The connection answers a request that waits for memory: the device does not have it.
    if (request.isPostponed) request.isLate = true;
    else this.#abandon(request);
    const seconds = (this.#service.options.requestTimeoutMs ?? 0) / 1000;
    this.#service.late.say(
      `${this.#about}${request.describe()} took more than ${seconds} s: answered with EIO`,
    );
    this.#news();
  }

  #abandon(request: Request): void {
    const reply = this.make();
    reply.copy(request);
    reply.settled = this.#service.clock.read();
    // It may still have waited for others.
    if (reply.begun === 0) reply.begun = reply.settled;
    request.abandoned = true;
    this.abandoned += 1;
    this.#queue(reply, errno.EIO);
  }

  #perform(request: Request): Answer | Promise<Answer> {
    const { clock, ledger } = this.#service;
    request.begun = clock.now;
    ledger.calls(request);
    const answer = this.#ask(request);
    ledger.returned();
    // A promise is timed when it settles.
    if (!(answer instanceof Promise)) request.settled = clock.read();
    return answer;
  }

  #ask(request: Request): Answer | Promise<Answer> {
    const { dispatch } = this.#service;
    const { buffer, command, offset, length } = request;
    if (buffer !== undefined) {
      const view = buffer.view(length);
      return command === NBD_CMD_READ
        ? dispatch.read(view, offset)
        : dispatch.write(view, offset, isFua(request));
    }
    if (command === NBD_CMD_BLOCK_STATUS) return dispatch.extents(offset, length);
    return performWithoutPayload(dispatch, request);
  }

  #hold(request: Request): void {
    this.count += 1;
    const { watchdog } = this.#service;
    // It has waited for memory: its time starts again.
    if (request.isPostponed) watchdog?.release(request);
    request.isPostponed = false;
    watchdog?.watch(request);
  }

  #queue(request: Request, answer: Answer): void {
    request.answer = answer;
    if (this.#lastSettled === undefined) this.#firstSettled = request;
    else this.#lastSettled.next = request;
    this.#lastSettled = request;
  }
}
