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
import { Memory } from "../libc/memory.ts";
import type { ConnectionOptions, Outcome, Trace, Wait } from "./connection-types.ts";
import type { Dispatch } from "../dispatch.ts";
import { errno } from "../uapi/errno.ts";
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_REQUEST_MAGIC,
  nbd_request,
} from "../uapi/nbd.ts";
import { MSG_DONTWAIT } from "../uapi/socket.ts";
import { Inbox, INBOX_BYTES, SINK_BYTES } from "./inbox.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE } from "./proto.ts";
import {
  requestCommand,
  requestCookieHigh,
  requestCookieLow,
  requestFlags,
  requestLength,
  requestMagic,
  requestOffset,
} from "./protocol.ts";
import { REPLY_BYTES, ReplyBatch } from "./reply-batch.ts";
import { extentsError, performWithoutPayload, readError, readFlags, writeError } from "./request-rules.ts";
import { Staging, STAGING_BYTES } from "./staging.ts";

/** The parts of a connection's memory: what comes in, reply headers, payloads that go neither way straight. */
const REPLIES_AT = INBOX_BYTES;
const STAGING_AT = REPLIES_AT + REPLY_BYTES;
/** The event loop gets its turn after this long, in milliseconds, however many requests there are. */
const TURN_MS = 50;

export class Connection {
  readonly statistics = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  /** Why the connection is broken, once it is. */
  fault = "";
  /** It is broken for no more than that the peer has left before it had all its replies. */
  peerIsGone = false;
  /** What the last run that ended with `turn` was stopped by. */
  waitsFor: Wait = "input";

  readonly #fd: number;
  readonly #dispatch: Dispatch;
  readonly #trace: Trace | undefined;
  readonly #structured: boolean;
  readonly #allocation: boolean;
  readonly #busyPollMs: number;
  readonly #memoryAddress: number;

  readonly #arena: Memory;
  readonly #inbox: Inbox;
  readonly #replies: ReplyBatch;
  readonly #staging: Staging;
  /** There is no memory for the next request. */
  #starved = false;
  /** Flags of each receive and send. */
  #flags = 0;
  #disconnected = false;

  /** The write whose payload is coming in, if there is one; it is answered once all of that is there. */
  #writing = false;
  #writeStatus = 0;
  #writePosition = 0;
  #writeOffset = 0;
  #writeLength = 0;
  #writeFlags = 0;
  #writeCookieHigh = 0;
  #writeCookieLow = 0;

  /** @param fd a connected stream socket, still the caller's, with a receive time-out (setReceiveTimeout). */
  constructor(fd: number, dispatch: Dispatch, options: ConnectionOptions = {}) {
    this.#fd = fd;
    this.#dispatch = dispatch;
    this.#trace = options.trace;
    this.#structured = options.structured === true;
    this.#allocation = options.allocation === true;
    this.#busyPollMs = options.busyPollMs ?? 0;
    this.#memoryAddress = dispatch.memoryAddress;

    this.#arena = new Memory(STAGING_AT + STAGING_BYTES);
    const bytes = this.#arena.bytes();
    const { address } = this.#arena;
    this.#inbox = new Inbox(address, bytes.subarray(0, REPLIES_AT));
    const replyBytes = bytes.subarray(REPLIES_AT, STAGING_AT);
    this.#replies = new ReplyBatch(address + REPLIES_AT, replyBytes, this.#structured);
    this.#staging = new Staging(this.#arena, STAGING_AT, options.budget);
  }

  /** Requests answered since the start. */
  get requests(): number {
    return this.statistics.requests;
  }

  /** Whether the stream stands within a request: the rest of it is still to come. */
  get midRequest(): boolean {
    return this.#inbox.midRequest;
  }

  /** Whether there are replies that the peer has not taken. */
  get hasReplies(): boolean {
    return !this.#replies.isEmpty;
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
      if (!this.#sendReplies()) return this.#stopped();
      const full = this.#decode();
      if (!this.#sendReplies() || this.fault !== "") return this.#stopped();
      if (this.#disconnected) return "disconnect";
      if (this.#starved) return this.#turn("memory");
      if (!full) {
        if (drained) return this.#turn("input");
        const received = this.#receive();
        if (received === 0) return "closed";
        if (received === -errno.EINTR) return this.#turn("nothing");
        if (received === -errno.EAGAIN) return this.#turn("input");
        if (received < 0) return this.#failed("receive", received);
        drained = this.#inbox.isDrained && this.#flags !== 0;
      }
      if (performance.now() - started >= limitMs) return this.#turn("nothing");
    }
  }

  /** Sends what is queued and takes nothing more. Returns true once all is sent, or nobody is there to take it. */
  flush(): boolean {
    return this.#replies.send(this.#fd, MSG_DONTWAIT) !== -errno.EAGAIN;
  }

  /** Gives back memory that was used for long payloads, unless it is in use. */
  release(): void {
    if (this.#replies.isEmpty && !this.#writing) this.#staging.shrink();
  }

  /** Gives the buffers back. The socket stays open. */
  close(): void {
    this.#staging.shrink();
    this.#arena.close();
  }

  /** One receive; where busy polling is on, after asking the socket over and over for a while. */
  #receive(): number {
    const inbox = this.#inbox;
    if (this.#busyPollMs > 0 && this.#flags === 0) {
      const until = performance.now() + this.#busyPollMs;
      do {
        const received = inbox.receive(this.#fd, MSG_DONTWAIT);
        if (received !== -errno.EAGAIN) return received;
      } while (performance.now() < until);
    }
    return inbox.receive(this.#fd, this.#flags);
  }

  // --- decoding ---

  /** Answers every whole request there is. Returns true when it stopped early because the batch is full. */
  #decode(): boolean {
    const inbox = this.#inbox;
    if (this.#writing && !this.#finishWrite()) return false;
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
    this.#inbox.at += nbd_request.size;
    switch (command) {
      case NBD_CMD_READ:
        return this.#read(flags, offset, length, at);
      case NBD_CMD_WRITE:
        return this.#beginWrite(flags, offset, length, at);
      case NBD_CMD_BLOCK_STATUS:
        return this.#blockStatus(flags, offset, length, at);
      case NBD_CMD_DISC:
        this.#trace?.(command, flags, offset, length, 0);
        this.#disconnected = true;
        return false;
      default: {
        const dispatch = this.#dispatch;
        const status = dispatch.now(performWithoutPayload(dispatch, command, flags, offset, length));
        this.#replyStatus(status, at);
        this.#answered(command, flags, offset, length, status);
        return true;
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
      status = dispatch.now(dispatch.read(staging.view(staging.used, length), offset));
    }
    if (status === 0) {
      const { view } = this.#inbox;
      this.#replies.data(address, offset, length, requestCookieHigh(view, at), requestCookieLow(view, at));
      if (this.#memoryAddress < 0) this.#staging.advance(length);
      this.statistics.bytesRead += length;
    } else {
      this.#replyStatus(status, at);
    }
    this.#answered(NBD_CMD_READ, flags, offset, length, status);
    return true;
  }

  #blockStatus(flags: number, offset: number, length: number, at: number): boolean {
    const dispatch = this.#dispatch;
    const refused = extentsError(this.#allocation, flags);
    const extents = refused === 0 ? dispatch.extentsNow(dispatch.extents(offset, length)) : refused;
    const status = typeof extents === "number" ? extents : 0;
    if (typeof extents === "number") {
      this.#replyStatus(extents, at);
    } else {
      const { view } = this.#inbox;
      const one = (flags & NBD_CMD_FLAG_REQ_ONE) !== 0;
      const told = one ? extents.slice(0, 1) : extents;
      this.#replies.extents(told, requestCookieHigh(view, at), requestCookieLow(view, at));
    }
    this.#answered(NBD_CMD_BLOCK_STATUS, flags, offset, length, status);
    return true;
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

    const { view } = this.#inbox;
    this.#writing = true;
    this.#writeStatus = status;
    this.#writePosition = this.#staging.used;
    this.#writeOffset = offset;
    this.#writeLength = length;
    this.#writeFlags = flags;
    this.#writeCookieHigh = requestCookieHigh(view, at);
    this.#writeCookieLow = requestCookieLow(view, at);
    const address = direct ? this.#memoryAddress + offset : this.#staging.address;
    this.#inbox.expectPayload(address, length, status === 0);
    return this.#finishWrite();
  }

  /** Returns false when the payload is not all there. */
  #finishWrite(): boolean {
    if (this.#inbox.payloadLeft > 0) return false;
    this.#writing = false;
    const fua = (this.#writeFlags & NBD_CMD_FLAG_FUA) !== 0;
    const length = this.#writeLength;
    let status = this.#writeStatus;
    if (status === 0) {
      status = this.#dispatch.now(
        this.#memoryAddress >= 0
          ? this.#dispatch.completeWrite(fua)
          : this.#dispatch.write(this.#staging.view(this.#writePosition, length), this.#writeOffset, fua),
      );
    }
    this.#replies.status(status, this.#writeCookieHigh, this.#writeCookieLow);
    if (status === 0) this.statistics.bytesWritten += length;
    this.#answered(NBD_CMD_WRITE, this.#writeFlags, this.#writeOffset, length, status);
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
    this.#starved = !staging.grow(length);
    return !this.#starved;
  }

  #replyStatus(status: number, at: number): void {
    const { view } = this.#inbox;
    this.#replies.status(status, requestCookieHigh(view, at), requestCookieLow(view, at));
  }

  /** Returns true once all that is queued is sent; else the socket is full, or the fault is noted. */
  #sendReplies(): boolean {
    if (this.#replies.isEmpty) return true;
    const result = this.#replies.send(this.#fd, this.#flags);
    if (result === 0) this.#staging.used = 0;
    else if (result !== -errno.EAGAIN) this.#failed("send", result);
    return result === 0;
  }

  #answered(command: number, flags: number, offset: number, length: number, status: number): void {
    this.statistics.requests += 1;
    if (status !== 0) this.statistics.errors += 1;
    this.#trace?.(command, flags, offset, length, status);
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
