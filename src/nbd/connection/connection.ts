/**
 * The request loop: one NBD connection in its transmission phase, from requests in to replies out.
 *
 *     socket ─ receive ─▶ request buffer ─ decode ─▶ Dispatch ─▶ device
 *     socket ◀─ one sendmsg per batch ─ ReplyBatch ◀─ reply headers, payloads where they lie
 *
 * This is the tight pump: it owns the thread and waits in a receive that a signal interrupts. One turn of the loop
 * takes all that the socket has, answers every whole request in it, and sends the replies with one call. The
 * payload of a write goes straight to its place, what has come in with the headers excepted; the payload of a read
 * is sent from where it lies. Nothing is allocated per request.
 *
 * A server has many of them on one thread: there a connection does not wait but says what it waits for.
 */
import { Account } from "./account.ts";
import { ConnectionMemory } from "./memory.ts";
import type { ConnectionOptions, Outcome, Wait } from "./types.ts";
import type { Dispatch } from "../../dispatch.ts";
import { errno } from "../../uapi/errno.ts";
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_REQUEST_MAGIC,
  nbd_request,
} from "../../uapi/nbd.ts";
import type { Statistics } from "../../transport.ts";
import { MSG_DONTWAIT } from "../../uapi/socket.ts";
import { Deferred, InFlight } from "./deferred.ts";
import { letSettle, waitForDevice } from "../wait/device-wait.ts";
import { type Inbox, SINK_BYTES } from "./inbox.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE } from "../wire/numbers.ts";
import {
  requestCommand,
  requestCookieHigh,
  requestCookieLow,
  requestFlags,
  requestLength,
  requestMagic,
  requestOffset,
} from "../wire/codec.ts";
import type { ReplyBatch } from "./reply-batch.ts";
import { IncomingWrite } from "./incoming-write.ts";
import { extentsError, performWithoutPayload, readError, readFlags, writeError } from "../wire/rules.ts";
import type { Staging } from "./staging.ts";

/** The event loop gets its turn after this long, in milliseconds, however many requests there are. */
const TURN_MS = 50;

export class Connection {
  readonly #account: Account;
  /** Why the connection is broken, once it is. */
  fault = "";
  /** It is broken for no more than that the peer has left before it had all its replies. */
  peerIsGone = false;
  /** What the last run that ended with `turn` was stopped by. */
  waitsFor: Wait = "input";

  readonly #fd: number;
  readonly #dispatch: Dispatch;
  readonly #structured: boolean;
  readonly #allocation: boolean;
  readonly #busyPollMs: number;
  readonly #memoryAddress: number;

  readonly #memory: ConnectionMemory;
  readonly #inbox: Inbox;
  readonly #replies: ReplyBatch;
  readonly #staging: Staging;
  readonly #deferred: Deferred;
  /** There is no memory for the next request. */
  #starved = false;
  /** The next request waits for one that is deferred. */
  #blocked = false;
  /** Flags of each receive and send. */
  #flags = 0;
  #disconnected = false;
  /** The cookie of the request that is carried out. */
  #cookieHigh = 0;
  #cookieLow = 0;
  /** The write whose payload is coming in, if there is one; it is answered once all of that is there. */
  readonly #write = new IncomingWrite();

  /** @param fd a connected stream socket, still the caller's, with a receive time-out (setReceiveTimeout). */
  constructor(fd: number, dispatch: Dispatch, options: ConnectionOptions = {}) {
    this.#fd = fd;
    this.#dispatch = dispatch;
    this.#account = new Account(options.trace);
    this.#structured = options.structured === true;
    this.#allocation = options.allocation === true;
    this.#busyPollMs = options.busyPollMs ?? 0;
    this.#memoryAddress = dispatch.memoryAddress;
    this.#memory = new ConnectionMemory(this.#structured, options.budget);
    this.#inbox = this.#memory.inbox;
    this.#replies = this.#memory.replies;
    this.#staging = this.#memory.staging;
    this.#deferred = new Deferred(options.inFlight ?? new InFlight(), this.#staging);
  }

  /** Requests answered since the start. */
  get requests(): number {
    return this.statistics.requests;
  }

  get statistics(): Statistics {
    return this.#account.statistics;
  }

  /** Whether the stream stands within a request: the rest of it is still to come. */
  get midRequest(): boolean {
    return this.#inbox.midRequest;
  }

  /** Whether there are replies that the peer has not taken. */
  get hasReplies(): boolean {
    return !this.#replies.isEmpty;
  }

  /** How many requests the device has not answered, or nobody has been told of. */
  get deferred(): number {
    return this.#deferred.count;
  }

  /** Whether there is something to do though the socket has no news. */
  get isReady(): boolean {
    return this.waitsFor === "nothing" || this.waitsFor === "device" || this.#deferred.hasSettled;
  }

  /** False: receives and sends do not wait, and a run ends when it has taken what there is. Default true. */
  set mayWait(may: boolean) {
    this.#flags = may ? 0 : MSG_DONTWAIT;
  }

  /** A number that grows whenever bytes have moved. */
  get progress(): number {
    return this.#inbox.receives + this.#replies.sends;
  }

  /** Takes bytes that came in with the handshake, fewer than {@link INBOX_BYTES}: before the first run. */
  feed(bytes: Uint8Array): void {
    this.#inbox.feed(bytes);
  }

  /** Serves until the event loop is due or the connection ends. To be called again after `turn`, and only then. */
  run(limitMs = TURN_MS): Outcome {
    const started = performance.now();
    let drained = false;
    for (;;) {
      this.#answerDeferred();
      if (!this.#sendReplies()) return this.#stopped();
      const full = this.#decode();
      if (!this.#sendReplies() || this.fault !== "") return this.#stopped();
      if (this.#disconnected) return "disconnect";
      if (this.#starved) return this.#turn("memory");
      if (!full && (this.#deferred.count > 0 || this.#blocked)) {
        const outcome = this.#receiveOrSettle();
        if (outcome !== undefined) return outcome;
      } else if (!full) {
        if (drained) return this.#turn("input");
        const received = this.#inbox.receiveBusily(this.#fd, this.#flags, this.#busyPollMs);
        if (received === 0) return "closed";
        if (received === -errno.EINTR) return this.#turn("nothing");
        if (received === -errno.EAGAIN) return this.#turn("input");
        if (received < 0) return this.#failed("receive", received);
        drained = this.#inbox.isDrained && this.#flags !== 0;
      }
      if (performance.now() - started >= limitMs) return this.#turn("nothing");
    }
  }

  /**
   * Answers what the device still has and sends what is queued, and takes nothing more. Returns true once all is
   * sent, or nobody is there to take it.
   */
  flush(): boolean {
    this.#answerDeferred();
    return this.#replies.send(this.#fd, MSG_DONTWAIT) !== -errno.EAGAIN && this.#deferred.count === 0;
  }

  /** Gives back memory that was used for long payloads, unless it is in use. */
  release(): void {
    if (this.#replies.isEmpty && !this.#write.isPending && !this.#staging.isLent) this.#staging.shrink();
  }

  /** Gives the buffers back: at once, or when the device is done with those that it has. The socket stays open. */
  close(): void {
    this.#deferred.whenSettled(() => this.#memory.close());
  }

  /** One receive, or the wait for a device that has requests. Returns how the run ends, unless it goes on. */
  #receiveOrSettle(): Outcome | undefined {
    letSettle();
    const mayWait = this.#flags === 0 && !this.#deferred.hasSettled;
    const news = waitForDevice(this.#blocked ? -1 : this.#fd, mayWait);
    const received = news === "socket" ? this.#inbox.receive(this.#fd, MSG_DONTWAIT) : -errno.EAGAIN;
    if (received === 0) return "closed";
    if (received < 0 && received !== -errno.EAGAIN) return this.#failed("receive", received);
    if (received > 0 || this.#deferred.hasSettled) return undefined;
    if (this.#flags === 0) return news === "nothing" ? this.#turn("nothing") : undefined;
    return this.#turn(this.#blocked ? "device" : "input");
  }

  // --- decoding ---

  /** Answers every whole request there is. Returns true when it stopped early because the batch is full. */
  #decode(): boolean {
    const inbox = this.#inbox;
    this.#blocked = false;
    this.#starved = false;
    if (this.#write.isPending && !this.#finishWrite()) return false;
    while (inbox.hasRequest) {
      if (this.#replies.isFull) return true;
      if (!this.#request(inbox.view, inbox.at)) return false;
    }
    return false;
  }

  /** Carries out the request at `at`. Returns false when decoding must end here. */
  #request(view: DataView, at: number): boolean {
    if (requestMagic(view, at) !== NBD_REQUEST_MAGIC) {
      this.#break(`a request began with 0x${requestMagic(view, at).toString(16)}, not with the magic number`);
      return false;
    }
    const command = requestCommand(view, at);
    const flags = requestFlags(view, at);
    const offset = requestOffset(view, at);
    const length = requestLength(view, at);
    if (this.#mustWait(offset, length, command !== NBD_CMD_READ)) return false;
    this.#cookieHigh = requestCookieHigh(view, at);
    this.#cookieLow = requestCookieLow(view, at);
    this.#inbox.at += nbd_request.size;
    switch (command) {
      case NBD_CMD_READ:
        return this.#read(flags, offset, length, at);
      case NBD_CMD_WRITE:
        return this.#beginWrite(flags, offset, length, at);
      case NBD_CMD_BLOCK_STATUS:
        return this.#blockStatus(flags, offset, length);
      case NBD_CMD_DISC:
        this.#account.trace?.(command, flags, offset, length, 0);
        this.#disconnected = true;
        return false;
      default: {
        const status = performWithoutPayload(this.#dispatch, command, flags, offset, length);
        if (typeof status !== "number") {
          const request = this.#deferred.make(command, flags, offset, length, -1);
          return this.#deferred.begin(request, this.#cookieHigh, this.#cookieLow, status);
        }
        return this.#answer(command, flags, offset, length, status);
      }
    }
  }

  #read(flags: number, offset: number, length: number, at: number): boolean {
    const dispatch = this.#dispatch;
    let status = readError(dispatch, readFlags(flags, this.#structured), offset, length);
    let address = this.#memoryAddress + offset;
    if (status === 0 && this.#memoryAddress < 0) {
      if (!this.#reserve(length)) return this.#postpone(at);
      const staging = this.#staging;
      address = staging.address;
      const answer = dispatch.read(staging.view(staging.used, length), offset);
      if (typeof answer !== "number") {
        const request = this.#deferred.make(NBD_CMD_READ, flags, offset, length, staging.used);
        return this.#deferred.begin(request, this.#cookieHigh, this.#cookieLow, answer);
      }
      status = answer;
    }
    if (status !== 0) return this.#answer(NBD_CMD_READ, flags, offset, length, status);
    this.#replies.data(address, offset, length, this.#cookieHigh, this.#cookieLow);
    if (this.#memoryAddress < 0) this.#staging.advance(length);
    this.#account.answered(NBD_CMD_READ, flags, offset, length, 0);
    return true;
  }

  #blockStatus(flags: number, offset: number, length: number): boolean {
    const dispatch = this.#dispatch;
    const refused = extentsError(this.#allocation, flags);
    const extents = refused === 0 ? dispatch.extentsNow(dispatch.extents(offset, length)) : refused;
    if (typeof extents === "number")
      return this.#answer(NBD_CMD_BLOCK_STATUS, flags, offset, length, extents);
    const told = (flags & NBD_CMD_FLAG_REQ_ONE) === 0 ? extents : extents.slice(0, 1);
    this.#replies.extents(told, this.#cookieHigh, this.#cookieLow);
    this.#account.answered(NBD_CMD_BLOCK_STATUS, flags, offset, length, 0);
    return true;
  }

  /** Whether a request must wait until the device is done with others. */
  #mustWait(offset: number, length: number, changes: boolean): boolean {
    this.#blocked = this.#deferred.blocks(offset, length, changes);
    return this.#blocked;
  }

  /** There is no room for the request at `at` now: it is decoded again in the next run. */
  #postpone(at: number): false {
    this.#inbox.at = at;
    return false;
  }

  // --- writes: begun when the header is there, finished when the payload is ---

  #beginWrite(flags: number, offset: number, length: number, at: number): boolean {
    const status = writeError(this.#dispatch, flags, offset, length);
    const direct = status === 0 && this.#memoryAddress >= 0;
    if (!direct && !this.#reserve(status === 0 ? length : Math.min(length, SINK_BYTES)))
      return this.#postpone(at);

    this.#write.begin(this.#inbox.view, at, status, direct ? -1 : this.#staging.used);
    const address = direct ? this.#memoryAddress + offset : this.#staging.address;
    this.#inbox.expectPayload(address, length, status === 0);
    return this.#finishWrite();
  }

  /** Returns false when the payload is not all there, or the write must wait for others. */
  #finishWrite(): boolean {
    const write = this.#write;
    const { flags, offset, length, position, cookieHigh, cookieLow } = write;
    if (this.#inbox.payloadLeft > 0 || this.#mustWait(offset, length, true)) return false;
    write.isPending = false;
    const fua = (flags & NBD_CMD_FLAG_FUA) !== 0;
    let { status } = write;
    if (status === 0) {
      const answer =
        position < 0
          ? this.#dispatch.completeWrite(fua)
          : this.#dispatch.write(this.#staging.view(position, length), offset, fua);
      if (typeof answer !== "number") {
        const request = this.#deferred.make(NBD_CMD_WRITE, flags, offset, length, position);
        return this.#deferred.begin(request, cookieHigh, cookieLow, answer);
      }
      status = answer;
    }
    this.#replies.status(status, cookieHigh, cookieLow);
    this.#account.answered(NBD_CMD_WRITE, flags, offset, length, status);
    return true;
  }

  // --- replies ---

  /**
   * Makes room for `length` bytes in the staging area, if need be by sending the replies whose payload lies there.
   * Returns false when that must wait.
   */
  #reserve(length: number): boolean {
    const staging = this.#staging;
    if (staging.has(length)) return true;
    if (!this.#sendReplies()) return false;
    if (staging.grow(length)) return true;
    if (staging.isLent) this.#blocked = true;
    else this.#starved = true;
    return false;
  }

  /** Answers the request that is carried out, without a payload. */
  #answer(command: number, flags: number, offset: number, length: number, status: number): true {
    this.#replies.status(status, this.#cookieHigh, this.#cookieLow);
    this.#account.answered(command, flags, offset, length, status);
    return true;
  }

  /** Returns true once all that is queued is sent; else the socket is full, or the fault is noted. */
  #sendReplies(): boolean {
    if (this.#replies.isEmpty) return true;
    const result = this.#replies.send(this.#fd, this.#flags);
    if (result === 0) this.#staging.sent();
    else if (result !== -errno.EAGAIN) this.#failed("send", result);
    return result === 0;
  }

  /** Queues the replies to all that has settled, as many as the batch takes. They are sent before anything else. */
  #answerDeferred(): void {
    while (this.#deferred.hasSettled && !this.#replies.isFull) {
      const { command, flags, offset, length, status } = this.#deferred.answer(this.#replies);
      this.#account.answered(command, flags, offset, length, status);
    }
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
