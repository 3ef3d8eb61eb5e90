/**
 * The request loop: one NBD connection in its transmission phase, from requests in to replies out.
 *
 *     socket ─ receive ─▶ request buffer ─ decode ─▶ Dispatch ─▶ device
 *     socket ◀─ one sendmsg per batch ─ ReplyBatch ◀─ reply headers, payloads where they lie
 *
 * It never waits by itself. A run takes all that the socket has, answers what can be answered, sends the replies with
 * one call, and says what it waits for: who waits, and how, is up to its owner (see nbd/wait). The payload of a write
 * goes straight to its place, what has come in with the headers excepted; the payload of a read is sent from where it
 * lies. Nothing is allocated per request.
 *
 * A request that the device puts off, by a promise, is held meanwhile, and so is one that touches the same bytes as
 * another; what comes after it goes on (see held-requests.ts).
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

/** Others are due after this long, in milliseconds, however many requests there are. */
const TURN_MS = 50;

export class Connection implements PoolUser {
  /** Why the connection is broken, once it is. */
  fault = "";
  /** It is broken for no more than that the peer has left before it had all its replies. */
  peerIsGone = false;
  /** What the last run that ended with `turn` was stopped by. */
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

  /** The request that is decoded next, and the write whose payload is coming in. */
  #next: Request;
  #incoming: Request | undefined;
  /** Requests that have been decoded. */
  #begun = 0;
  /** The last receive has brought something, and all there was. */
  #drained = false;
  #disconnected = false;
  /** There is no memory for the next request; there may be some again. */
  #starved = false;
  #memoryFreed = false;
  #isRunning = false;
  /** What a receive that waited has come to, unless it was requests. */
  #end: Outcome = "turn";

  /** @param fd a connected stream socket, still the caller's. @throws ErrnoError ENOMEM */
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

  /** What has come in. */
  get inbox(): Pick<Inbox, "midRequest" | "holdsBack"> {
    return this.#inbox;
  }

  /** Whether there are replies that the peer has not taken. */
  get hasReplies(): boolean {
    return !this.#batch.isEmpty;
  }

  /** How many requests have no reply yet, for the device has not answered them. */
  get held(): number {
    return this.#held.count;
  }

  /** How many requests the device still has, those that were given up included. */
  get left(): number {
    return this.#held.count + this.#held.abandoned;
  }

  /** Whether the device has answered requests that have no reply yet. */
  get hasSettled(): boolean {
    return this.#held.hasSettled;
  }

  /** Whether there is something to do though the socket has no news. */
  get isReady(): boolean {
    if (this.waitsFor === "output") return false;
    if (this.waitsFor === "memory" && (this.#memoryFreed || this.#next.isLate)) return true;
    return this.waitsFor === "nothing" || this.#held.hasSettled;
  }

  /** A number that grows whenever bytes have moved. */
  get progress(): number {
    return this.#inbox.receives + this.#batch.sends;
  }

  /** Takes bytes that came in with the handshake, fewer than {@link INBOX_BYTES}: before the first run. */
  feed(bytes: Uint8Array): void {
    this.#inbox.feed(bytes);
  }

  memoryFreed(): void {
    this.#memoryFreed = true;
    this.#onNews();
  }

  /** Does all there is to do, for about as long as `limitMs`. To be called again after `turn`, and only then. */
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
   * One receive that waits, after a run that waits for input: see {@link Inbox.await}. After `news` it is time for
   * another run.
   */
  await(sleep: boolean): "news" | "silence" | "signal" {
    const received = this.#inbox.await(this.#fd, sleep);
    if (received === -errno.EINTR) return "signal";
    if (received === -errno.EAGAIN) return "silence";
    if (received > 0) this.#drained = this.#inbox.isDrained;
    else this.#end = received === 0 ? "closed" : this.#failed("receive", received);
    // The socket has told of it, and will not once more.
    this.waitsFor = "nothing";
    return "news";
  }

  /**
   * Answers what the device still has and sends what is queued, and takes nothing more. Returns true once all is
   * sent, or nobody is there to take it.
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
   * Whether the peer owes us something and does not get on with it. To be called now and then.
   * @param takesRequests false: all that it can owe is the taking of replies.
   */
  isStuck(limitMs: number, now: number, takesRequests: boolean): boolean {
    const isShort = this.#service.pool.isShort;
    const owesInput = takesRequests && this.waitsFor === "input" && this.#inbox.midRequest;
    return this.#stalls.isOver(owesInput ? this.#begun : -1, this.#inbox, this.#batch, limitMs, isShort, now);
  }

  /** Gives all back but what the device has, which it keeps until it is done. The socket stays open. */
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
        // There are whole requests left where the device had all that it may have until a moment ago.
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

  /** Begins every whole request there is. Returns true when it stopped though there may be more: others are due. */
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
    // Postponed once more, it keeps its place among those who wait, and its time runs on.
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

  /** An errno for a request that does not go to the device, else 0. */
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

  /** Where the payload goes is decided now; the rest is done when it is there. */
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

  /** Returns false when the payload is not all there. */
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

  /** Returns false when there is no memory for the request's payload now. */
  #takeBuffer(request: Request): boolean {
    request.buffer = this.#service.pool.take(request.length, this);
    return request.buffer !== undefined;
  }

  /** There is no memory for the request now: it is decoded once more. */
  #postpone(): false {
    this.#inbox.at -= nbd_request.size;
    this.#starved = true;
    this.#memoryFreed = false;
    this.#postponed.add(this.#next);
    return false;
  }

  // --- replies out ---

  /** Returns true once all that is queued is sent; else the socket is full, or the fault is noted. */
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

  /** After replies that could not be sent now, or not at all. */
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
