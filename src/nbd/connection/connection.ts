/**
 * The request loop: one NBD connection in its transmission phase, from requests in to replies out.
 *
 *     socket ─ receive ─▶ request buffer ─ decode ─▶ Dispatch ─▶ device
 *     socket ◀─ one sendmsg per batch ─ ReplyBatch ◀─ reply headers, payloads where they lie
 *
 * It never waits by itself. A run takes everything from the socket, answers what it can, sends the replies with one
 * call, and says what it waits for: the owner decides who waits, and how (see nbd/wait). The payload of a write goes
 * straight to its place, except the part that arrived with the headers; the payload of a read is sent from where it is.
 * Nothing is allocated per request.
 *
 * A request for which the device returns a promise is held meanwhile, and so is one that touches the same bytes as
 * another; later requests continue (see held-requests.ts).
 */
import { drainMicrotasks } from "bun:jsc";
import { COUNTERS, REQUESTS, sumCounters } from "../../queues/counters.ts";
import { TimeSlice } from "../../serving/time-slice.ts";
import type { Statistics } from "../../transport.ts";
import { errno } from "../../uapi/errno.ts";
import { NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_REQUEST_MAGIC, nbd_request } from "../../uapi/nbd.ts";
import { MSG_DONTWAIT } from "../../uapi/socket.ts";
import { whyRefused } from "../wire/rules.ts";
import { Account } from "./account.ts";
import { HeldRequests } from "./held-requests.ts";
import { type Inbox, sinkAddress } from "./inbox.ts";
import { ConnectionMemory } from "./memory.ts";
import type { PoolUser } from "./payload-pool.ts";
import { Postponed } from "./postponed.ts";
import { Replies } from "./replies.ts";
import type { ReplyBatch } from "./reply-batch.ts";
import type { Answer, Request } from "./request.ts";
import type { Service } from "./service.ts";
import { Stalls } from "./stall.ts";
import type { ConnectionOptions, Outcome, Wait } from "./types.ts";

/** The limit of a run in milliseconds, however many requests there are: then others are due. */
const TURN_MS = 50;

export class Connection implements PoolUser {
  /** Why the connection is broken, once it is. */
  fault = "";
  /** The only fault is that the peer left before it had all its replies. */
  peerIsGone = false;
  /** Why the last run that ended with `turn` stopped. */
  waitsFor: Wait = "input";
  pooledBytes = 0;

  readonly #fd: number;
  readonly #service: Service;
  readonly #structured: boolean;
  readonly #allocation: boolean;
  readonly #memoryAddress: number;
  readonly #memory: ConnectionMemory;
  readonly #inbox: Inbox;
  readonly #batch: ReplyBatch;
  readonly #account: Account;
  readonly #replies: Replies;
  readonly #held: HeldRequests;
  readonly #postponed: Postponed;
  readonly #slice: TimeSlice;
  readonly #stalls = new Stalls();
  readonly #onNews: () => void;

  /** The request to decode next, and the write whose payload is arriving. */
  #next: Request;
  #incoming: Request | undefined;
  /** Requests that have been decoded. */
  #begun = 0;
  /** The last receive has brought something, and emptied the socket. */
  #drained = false;
  #disconnected = false;
  /** Out of memory for the next request; there may be some again. */
  #starved = false;
  #memoryFreed = false;
  #isRunning = false;
  /** The result of a receive that waited, unless it brought requests. */
  #end: Outcome = "turn";

  /** @param fd a connected stream socket, which remains the caller's. @throws ErrnoError ENOMEM */
  constructor(fd: number, service: Service, options: ConnectionOptions = {}) {
    this.#fd = fd;
    this.#service = service;
    this.#structured = options.structured === true;
    this.#allocation = options.allocation === true;
    this.#memoryAddress = service.dispatch.memoryAddress;
    this.#slice = new TimeSlice(service.clock);
    this.#memory = new ConnectionMemory(this.#structured, service.clock, service.options.busyPollMs);
    this.#inbox = this.#memory.inbox;
    this.#batch = this.#memory.replies;
    const { onNews, counters = new Float64Array(COUNTERS) } = options;
    this.#account = new Account(counters, service, options.ring);
    this.#replies = new Replies(this.#batch, this.#account);
    this.#onNews = () => {
      if (!this.#isRunning) onNews?.();
    };
    this.#held = new HeldRequests(service, this.#onNews, options.name);
    this.#postponed = new Postponed(service, this);
    this.#next = this.#held.make();
  }

  /** Requests answered since the start. */
  get requests(): number {
    return this.#account.counters[REQUESTS] ?? 0;
  }

  get statistics(): Statistics {
    return sumCounters([this.#account.counters]);
  }

  /** What has arrived. */
  get inbox(): Pick<Inbox, "midRequest" | "holdsBack"> {
    return this.#inbox;
  }

  /** Whether there are replies that the peer has not read. */
  get hasReplies(): boolean {
    return !this.#batch.isEmpty;
  }

  /** How many requests have no reply yet because the device has not answered them. */
  get held(): number {
    return this.#held.count;
  }

  /** How many requests the device still has, including abandoned ones. */
  get left(): number {
    return this.#held.count + this.#held.abandoned;
  }

  /** Whether the device has answered requests that have no reply yet. */
  get hasSettled(): boolean {
    return this.#held.hasSettled;
  }

  /** Whether there is something to do although the socket has no news. */
  get isReady(): boolean {
    if (this.waitsFor === "output") return false;
    if (this.waitsFor === "memory" && (this.#memoryFreed || this.#next.isLate)) return true;
    return this.waitsFor === "nothing" || this.#held.hasSettled;
  }

  /** A number that grows whenever bytes have moved. */
  get progress(): number {
    return this.#inbox.receives + this.#batch.sends;
  }

  /** Takes bytes that arrived with the handshake, fewer than {@link INBOX_BYTES}. Call it before the first run. */
  feed(bytes: Uint8Array): void {
    this.#inbox.feed(bytes);
  }

  memoryFreed(): void {
    this.#memoryFreed = true;
    this.#onNews();
  }

  /** Does everything there is to do, for about `limitMs`. Call it again after `turn`, and only then. */
  run(limitMs = TURN_MS): Outcome {
    this.#isRunning = true;
    try {
      this.#slice.begin(limitMs);
      return this.#run();
    } finally {
      this.#isRunning = false;
    }
  }

  /**
   * One receive that waits, after a run that waits for input: see {@link Inbox.await}. After `news`, call {@link run}.
   */
  await(sleep: boolean): "news" | "silence" | "signal" {
    const received = this.#inbox.await(this.#fd, sleep);
    if (received === -errno.EINTR) return "signal";
    if (received === -errno.EAGAIN) return "silence";
    if (received > 0) this.#drained = this.#inbox.isDrained;
    else this.#end = received === 0 ? "closed" : this.#failed("receive", received);
    // The socket has reported it, and will not do so again.
    this.waitsFor = "nothing";
    return "news";
  }

  /**
   * Answers what the device has settled and sends what is queued, but takes no more requests. Returns true once
   * everything is sent, or the peer is gone.
   */
  flush(): boolean {
    this.#postponed.remove(this.#next);
    do {
      this.#replies.answerSettled(this.#held);
      const sent = this.#batch.send(this.#fd, MSG_DONTWAIT);
      if (sent === -errno.EAGAIN) return false;
      if (sent < 0) this.#batch.discard();
    } while (this.#held.hasSettled);
    return this.#held.count === 0;
  }

  /**
   * Whether the peer owes us something and makes no progress. Call it now and then.
   * @param takesRequests false: it can only owe us that it reads replies.
   */
  isStuck(limitMs: number, now: number, takesRequests: boolean): boolean {
    const isShort = this.#service.pool.isShort;
    const owesInput = takesRequests && this.waitsFor === "input" && this.#inbox.midRequest;
    return this.#stalls.isOver(owesInput ? this.#begun : -1, this.#inbox, this.#batch, limitMs, isShort, now);
  }

  /** Frees everything except what the device has, which it keeps until it is done. The socket stays open. */
  close(): void {
    this.#held.close();
    if (this.#incoming !== undefined) this.#held.giveUpWrite(this.#incoming);
    this.#incoming = undefined;
    this.#postponed.remove(this.#next);
    this.#memory.close();
  }

  #run(): Outcome {
    if (this.#end !== "turn") return this.#end;
    let drained = this.#drained;
    this.#drained = false;
    for (;;) {
      this.#replies.answerSettled(this.#held);
      if (!this.#sendReplies()) return this.#stopped();
      const isMore = this.#decode();
      if (this.#held.count > 0) {
        drainMicrotasks();
        this.#replies.answerSettled(this.#held);
      }
      if (!this.#sendReplies() || this.fault !== "") return this.#stopped();
      if (this.#disconnected) return "disconnect";
      if (!isMore && !this.#held.hasSettled) {
        if (this.#starved && !this.#memoryFreed) return this.#turn("memory");
        if (this.#held.isFull) return this.#turn("device");
        // Whole requests may be left, because the device was full until a moment ago.
        if (!this.#starved && !this.#inbox.hasRequest) {
          if (drained) return this.#turn("input");
          const received = this.#inbox.receive(this.#fd);
          if (received === 0) return "closed";
          if (received === -errno.EAGAIN || received === -errno.EINTR) return this.#turn("input");
          if (received < 0) return this.#failed("receive", received);
          drained = this.#inbox.isDrained;
        }
      }
      if (this.#slice.look()) return this.#turn("nothing");
    }
  }

  // --- requests in ---

  /** Begins every whole request. Returns true if it stopped although there may be more, because others are due. */
  #decode(): boolean {
    const inbox = this.#inbox;
    this.#starved = false;
    if (this.#incoming !== undefined && !this.#finishWrite(this.#incoming)) return false;
    while (inbox.hasRequest) {
      if (this.#batch.isFull || this.#slice.isOver) return true;
      if (this.#held.isFull || !this.#request(this.#next)) return false;
      this.#slice.worked();
    }
    return false;
  }

  /** Decodes the next request into `request` and begins it. Returns false when decoding must end here. */
  #request(request: Request): boolean {
    const inbox = this.#inbox;
    inbox.decode(request);
    if (request.magic !== NBD_REQUEST_MAGIC) {
      this.#break(`a request began with 0x${request.magic.toString(16)}, not with the magic number`);
      return false;
    }
    inbox.at += nbd_request.size;
    this.#begun += 1;
    const wasPostponed = request.isPostponed;
    const goesOn = this.#carryOut(request);
    // If postponed again, it keeps its place among those who wait, and its time runs on.
    if (wasPostponed && !this.#starved) this.#postponed.remove(request);
    return goesOn;
  }

  #carryOut(request: Request): boolean {
    switch (request.command) {
      case NBD_CMD_READ:
        return this.#read(request);
      case NBD_CMD_WRITE:
        return this.#beginWrite(request);
      case NBD_CMD_DISC:
        request.begun = request.settled = request.arrived;
        this.#account.tell(request, 0);
        this.#disconnected = true;
        return false;
      default:
        return this.#start(request, this.#whyRefused(request));
    }
  }

  /** An errno if the request must not go to the device, else 0. */
  #whyRefused(request: Request): number {
    const { isLate } = request;
    request.isLate = false;
    if (isLate || this.#held.checkHung()) return errno.EIO;
    return whyRefused(this.#service.dispatch, request, this.#structured, this.#allocation);
  }

  #read(request: Request): boolean {
    const refused = this.#whyRefused(request);
    if (refused !== 0) return this.#start(request, refused);
    if (this.#memoryAddress >= 0 && this.#held.goesAhead(request)) {
      this.#replies.data(request, this.#memoryAddress + request.offset);
      return true;
    }
    if (!this.#takeBuffer(request)) return this.#postpone();
    return this.#start(request, 0);
  }

  /** Decides where the payload goes; the rest follows once it has arrived. */
  #beginWrite(request: Request): boolean {
    const refused = this.#whyRefused(request);
    let address = this.#memoryAddress + request.offset;
    if (refused !== 0) {
      address = sinkAddress;
    } else if (this.#memoryAddress < 0 || !this.#held.goesAhead(request)) {
      if (!this.#takeBuffer(request)) return this.#postpone();
      address = request.buffer?.address ?? 0;
    }
    request.refused = refused;
    this.#incoming = request;
    this.#next = this.#held.make();
    this.#inbox.expectPayload(address, request.length, refused === 0);
    return this.#finishWrite(request);
  }

  /** Returns false if the payload has not arrived completely. */
  #finishWrite(request: Request): boolean {
    if (this.#inbox.payloadLeft > 0) return false;
    this.#incoming = undefined;
    let answer: Answer | undefined = request.refused;
    if (answer === 0 && request.buffer !== undefined) answer = this.#held.start(request);
    else if (answer === 0) answer = this.#held.complete(request);
    if (answer === undefined) return true;
    this.#replies.answer(request, answer);
    this.#held.recycle(request);
    return true;
  }

  /** Answers `#next`, or gives it to the device. */
  #start(request: Request, refused: number): true {
    const answer = refused === 0 ? this.#held.start(request) : refused;
    if (answer === undefined) this.#next = this.#held.make();
    else this.#replies.answer(request, answer);
    return true;
  }

  /** Returns false if there is no memory for the request's payload now. */
  #takeBuffer(request: Request): boolean {
    request.buffer = this.#service.pool.take(request.length, this);
    return request.buffer !== undefined;
  }

  /** There is no memory for the request now: it will be decoded again. */
  #postpone(): false {
    this.#inbox.at -= nbd_request.size;
    this.#starved = true;
    this.#memoryFreed = false;
    this.#postponed.add(this.#next);
    return false;
  }

  // --- replies out ---

  /** Returns true once everything queued is sent; else the socket is full, or the fault is noted. */
  #sendReplies(): boolean {
    if (this.#batch.isEmpty) return true;
    const result = this.#batch.send(this.#fd, MSG_DONTWAIT);
    if (result < 0 && result !== -errno.EAGAIN) this.#failed("send", result);
    return result === 0;
  }

  // --- the end of a run ---

  #turn(waitsFor: Wait): "turn" {
    this.waitsFor = waitsFor;
    return "turn";
  }

  /** The outcome if replies could not be sent now, or at all. */
  #stopped(): Outcome {
    return this.fault === "" ? this.#turn("output") : "broken";
  }

  #failed(what: string, result: number): "broken" {
    this.peerIsGone = result === -errno.EPIPE || result === -errno.ECONNRESET;
    return this.#break(`${what} failed with errno ${-result}`);
  }

  #break(fault: string): "broken" {
    this.fault = fault;
    return "broken";
  }
}
