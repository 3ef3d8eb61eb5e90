/**
 * The request loop: one NBD connection in its transmission phase, from requests in to replies out.
 *
 *     socket ─ receive ─▶ request buffer ─ decode ─▶ Dispatch ─▶ device
 *     socket ◀─ one sendmsg per batch ─ iovecs ◀─ reply headers, payloads where they lie
 *
 * This is the tight pump: it owns the thread and waits in a receive that a signal interrupts. One turn of the loop
 * takes all that the socket has, answers every whole request in it, and sends the replies with one call. The
 * payload of a write goes straight to its place, what has come in with the headers excepted; the payload of a read
 * is sent from where it lies. Nothing is allocated per request.
 */
import { copy, Memory } from "../libc/memory.ts";
import { IovecTable } from "../libc/iovec.ts";
import { receive, receiveVector, SendMessage } from "../libc/socket.ts";
import type { Dispatch } from "../dispatch.ts";
import type { Trace } from "../transport.ts";
import { errno } from "../uapi/errno.ts";
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_REQUEST_MAGIC,
  nbd_reply,
  nbd_request,
} from "../uapi/nbd.ts";
import {
  MAX_PAYLOAD,
  putReply,
  requestCommand,
  requestCookieHigh,
  requestCookieLow,
  requestFlags,
  requestLength,
  requestMagic,
  requestOffset,
  wireError,
} from "./protocol.ts";
import { performWithoutPayload, readError, writeError } from "./request-rules.ts";
import { ViewCache } from "../serving/view-cache.ts";

/**
 * How a run ended: `turn`, the event loop is due; `disconnect`, the peer asked for it; `closed`, the peer is gone;
 * `broken`, what it sent is not NBD, or the socket failed.
 */
export type Outcome = "turn" | "disconnect" | "closed" | "broken";

export interface ConnectionOptions {
  readonly trace?: Trace | undefined;
}

/** Bytes received at once where the requests are small: 30 writes of 4 KiB, or more than 4,000 reads. */
const REQUEST_BYTES = 128 * 1024;
/** Bytes received at once after a long write: room for headers, so that the next payload goes to its place. */
const REQUEST_BYTES_LONG = 4096;
const LONG_PAYLOAD = 32 * 1024;
/** Replies are sent when this many bytes of payload are waiting, so that the peer has work meanwhile. */
const BATCH_BYTES = 1024 * 1024;
/** Half the iovecs of one call: each reply takes up to two. */
const REPLIES_MAX = 512;
/** Where a payload is put in the staging area: what O_DIRECT asks of an address. */
const STAGING_ALIGNMENT = 4096;
/** The event loop gets its turn after this long, in milliseconds, however many requests there are. */
const TURN_MS = 50;

export class Connection {
  /** Requests answered since the start. */
  requests = 0;
  /** Why the connection is broken, once it is. */
  fault = "";

  readonly #fd: number;
  readonly #dispatch: Dispatch;
  readonly #trace: Trace | undefined;
  readonly #memoryAddress: number;

  readonly #arena: Memory;
  readonly #requestAddress: number;
  readonly #requestView: DataView;
  readonly #requestBytes: Uint8Array;
  /** The bytes in the request buffer that have not been decoded: from `#at` to `#end`. */
  #at = 0;
  #end = 0;
  #receiveLimit = REQUEST_BYTES;

  readonly #replyAddress: number;
  readonly #replyView: DataView;
  #replies = 0;
  readonly #iovecs = new IovecTable(2 * REPLIES_MAX);
  readonly #message = new SendMessage(this.#iovecs);
  readonly #receiveIovecs = new IovecTable(2);
  #batchBytes = 0;

  /** Payloads on their way from or to a device that is not memory. */
  readonly #stagingAddress: number;
  readonly #staging: ViewCache;
  #staged = 0;

  /** The write whose payload is coming in; it is answered when `#payloadLeft` is 0. */
  #payloadLeft = 0;
  #payloadAddress = 0;
  #payloadPosition = 0;
  #payloadStatus = 0;
  #writeOffset = 0;
  #writeLength = 0;
  #writeFlags = 0;
  #writeCookieHigh = 0;
  #writeCookieLow = 0;
  #disconnected = false;

  /** @param fd a connected stream socket, still the caller's, with a receive time-out (setReceiveTimeout). */
  constructor(fd: number, dispatch: Dispatch, options: ConnectionOptions = {}) {
    this.#fd = fd;
    this.#dispatch = dispatch;
    this.#trace = options.trace;
    this.#memoryAddress = dispatch.memoryAddress;

    const replyBytes = Math.ceil((REPLIES_MAX * nbd_reply.size) / STAGING_ALIGNMENT) * STAGING_ALIGNMENT;
    this.#arena = new Memory(REQUEST_BYTES + replyBytes + MAX_PAYLOAD);
    const bytes = this.#arena.bytes();
    this.#requestAddress = this.#arena.address;
    this.#requestBytes = bytes.subarray(0, REQUEST_BYTES);
    this.#requestView = new DataView(bytes.buffer, 0, REQUEST_BYTES);
    this.#replyAddress = this.#arena.address + REQUEST_BYTES;
    this.#replyView = new DataView(bytes.buffer, REQUEST_BYTES, replyBytes);
    this.#stagingAddress = this.#replyAddress + replyBytes;
    this.#staging = new ViewCache(bytes.buffer, REQUEST_BYTES + replyBytes, STAGING_ALIGNMENT);
  }

  /** Serves until the event loop is due or the connection ends. To be called again after `turn`, and only then. */
  run(): Outcome {
    const started = performance.now();
    for (;;) {
      const batchFull = this.#decode();
      if (!this.#sendReplies()) return "broken";
      if (this.fault !== "") return "broken";
      if (this.#disconnected) return "disconnect";
      if (!batchFull) {
        const received = this.#receive();
        if (received === 0) return "closed";
        if (received === -errno.EINTR || received === -errno.EAGAIN) return "turn";
        if (received < 0) return this.#break(`receive failed with errno ${-received}`);
      }
      if (performance.now() - started >= TURN_MS) return "turn";
    }
  }

  /** Gives the buffers back. The socket stays open. */
  close(): void {
    this.#arena.close();
  }

  // --- receiving ---

  /** One receive of what is there, or the wait for it. Returns as receive() does. */
  #receive(): number {
    if (this.#payloadLeft > 0) return this.#receivePayload();
    if (this.#at > 0) {
      // What is left is less than a header.
      this.#requestBytes.copyWithin(0, this.#at, this.#end);
      this.#end -= this.#at;
      this.#at = 0;
    }
    const room = this.#receiveLimit - this.#end;
    const received = receive(this.#fd, this.#requestAddress + this.#end, room);
    if (received > 0) this.#end += received;
    return received;
  }

  /** The rest of a payload to its place, and what follows it to the request buffer, which is empty at this point. */
  #receivePayload(): number {
    const left = this.#payloadStatus === 0 ? this.#payloadLeft : Math.min(this.#payloadLeft, MAX_PAYLOAD);
    this.#receiveIovecs.clear();
    this.#receiveIovecs.push(this.#payloadAddress, left);
    this.#receiveIovecs.push(this.#requestAddress, left === this.#payloadLeft ? this.#receiveLimit : 0);
    this.#at = 0;
    this.#end = 0;
    const received = receiveVector(this.#fd, this.#receiveIovecs);
    if (received > 0) {
      this.#end = Math.max(0, received - left);
      this.#takePayload(received - this.#end);
    }
    return received;
  }

  /** `length` more bytes of the payload are in their place. */
  #takePayload(length: number): void {
    this.#payloadLeft -= length;
    // A payload that nobody wants is received to the same place again and again.
    if (this.#payloadStatus === 0) this.#payloadAddress += length;
    if (this.#payloadLeft === 0) this.#finishWrite();
  }

  // --- decoding ---

  /** Answers every whole request in the buffer. Returns true when it stopped early because the batch is full. */
  #decode(): boolean {
    while (this.#payloadLeft === 0 && this.#end - this.#at >= nbd_request.size) {
      if (this.#replies === REPLIES_MAX || this.#batchBytes >= BATCH_BYTES) return true;
      if (!this.#request(this.#requestView, this.#at)) return false;
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
    this.#at += nbd_request.size;
    switch (command) {
      case NBD_CMD_READ:
        return this.#read(flags, offset, length, at);
      case NBD_CMD_WRITE:
        return this.#beginWrite(flags, offset, length, at);
      case NBD_CMD_DISC:
        this.#trace?.(command, flags, offset, length, 0);
        this.#disconnected = true;
        return false;
      default: {
        const dispatch = this.#dispatch;
        const status = dispatch.now(performWithoutPayload(dispatch, command, flags, offset, length));
        this.#reply(status, at);
        this.#answered(command, flags, offset, length, status);
        return true;
      }
    }
  }

  #read(flags: number, offset: number, length: number, at: number): boolean {
    let status = readError(this.#dispatch, flags, offset, length);
    let address = this.#memoryAddress + offset;
    if (status === 0 && this.#memoryAddress < 0) {
      if (!this.#reserve(length)) return false;
      address = this.#stagingAddress + this.#staged;
      status = this.#dispatch.now(this.#dispatch.read(this.#staging.view(this.#staged, length), offset));
    }
    this.#reply(status, at);
    if (status === 0) {
      this.#iovecs.push(address, length);
      this.#batchBytes += length;
      if (this.#memoryAddress < 0) this.#staged += Math.ceil(length / STAGING_ALIGNMENT) * STAGING_ALIGNMENT;
    }
    this.#answered(NBD_CMD_READ, flags, offset, length, status);
    return true;
  }

  // --- writes: begun when the header is there, finished when the payload is ---

  #beginWrite(flags: number, offset: number, length: number, at: number): boolean {
    const status = writeError(this.#dispatch, flags, offset, length);
    const direct = status === 0 && this.#memoryAddress >= 0;
    if (!direct && !this.#reserve(Math.min(length, MAX_PAYLOAD))) return false;

    this.#payloadPosition = this.#staged;
    this.#payloadAddress = direct ? this.#memoryAddress + offset : this.#stagingAddress + this.#staged;
    this.#payloadStatus = status;
    this.#payloadLeft = length;
    this.#writeOffset = offset;
    this.#writeLength = length;
    this.#writeFlags = flags;
    this.#writeCookieHigh = requestCookieHigh(this.#requestView, at);
    this.#writeCookieLow = requestCookieLow(this.#requestView, at);
    this.#receiveLimit = length >= LONG_PAYLOAD ? REQUEST_BYTES_LONG : REQUEST_BYTES;

    const here = Math.min(length, this.#end - this.#at);
    if (status === 0) copy(this.#payloadAddress, this.#requestAddress + this.#at, here);
    this.#at += here;
    this.#takePayload(here);
    return true;
  }

  #finishWrite(): void {
    const fua = (this.#writeFlags & NBD_CMD_FLAG_FUA) !== 0;
    const length = this.#writeLength;
    let status = this.#payloadStatus;
    if (status === 0) {
      status = this.#dispatch.now(
        this.#memoryAddress >= 0
          ? this.#dispatch.completeWrite(fua)
          : this.#dispatch.write(this.#staging.view(this.#payloadPosition, length), this.#writeOffset, fua),
      );
    }
    this.#pushReply(status, this.#writeCookieHigh, this.#writeCookieLow);
    this.#answered(NBD_CMD_WRITE, this.#writeFlags, this.#writeOffset, length, status);
  }

  // --- replies ---

  /** Makes room for `length` bytes in the staging area, if need be by sending the replies whose payload lies there. */
  #reserve(length: number): boolean {
    if (this.#staged + length <= MAX_PAYLOAD) return true;
    return this.#sendReplies();
  }

  #reply(status: number, at: number): void {
    this.#pushReply(
      status,
      requestCookieHigh(this.#requestView, at),
      requestCookieLow(this.#requestView, at),
    );
  }

  /** Queues a reply header; headers that touch share an iovec. */
  #pushReply(status: number, cookieHigh: number, cookieLow: number): void {
    const iovecs = this.#iovecs;
    const slot = this.#replies * nbd_reply.size;
    const address = this.#replyAddress + slot;
    putReply(this.#replyView, slot, wireError(status), cookieHigh, cookieLow);
    const last = iovecs.count - 1;
    if (last >= 0 && iovecs.address(last) + iovecs.length(last) === address) {
      iovecs.set(last, iovecs.address(last), iovecs.length(last) + nbd_reply.size);
    } else {
      iovecs.push(address, nbd_reply.size);
    }
    this.#replies += 1;
  }

  /** Sends what is queued, all of it. Returns false, with the fault noted, when the socket does not take it. */
  #sendReplies(): boolean {
    const iovecs = this.#iovecs;
    let first = 0;
    while (first < iovecs.count) {
      let sent = this.#message.send(this.#fd, first);
      if (sent === -errno.EINTR) continue;
      if (sent < 0) {
        this.#break(`send failed with errno ${-sent}`);
        return false;
      }
      while (first < iovecs.count && sent >= iovecs.length(first)) {
        sent -= iovecs.length(first);
        first += 1;
      }
      if (sent > 0) iovecs.set(first, iovecs.address(first) + sent, iovecs.length(first) - sent);
    }
    iovecs.clear();
    this.#replies = 0;
    this.#batchBytes = 0;
    this.#staged = 0;
    return true;
  }

  #answered(command: number, flags: number, offset: number, length: number, status: number): void {
    this.requests += 1;
    this.#trace?.(command, flags, offset, length, status);
  }

  #break(fault: string): "broken" {
    this.fault = fault;
    return "broken";
  }
}
