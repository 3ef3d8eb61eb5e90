/**
 * Replies on their way out of a connection: headers in one area, payloads where they are, all sent with one call. What
 * the socket does not accept stays queued, in order. Nothing is allocated per reply, except for error messages and
 * block status.
 */
import type { Extent } from "../../device.ts";
import { IovecTable } from "../../libc/iovec.ts";
import { SendMessage } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { nbd_reply } from "../../uapi/nbd.ts";
import { UIO_MAXIOV } from "../../uapi/socket.ts";
import { errorChunk, extentsChunk } from "../wire/chunks.ts";
import { NBD_REPLY_TYPE_NONE, nbd_structured_reply } from "../wire/numbers.ts";
import { DATA_HEADER_BYTES, putChunk, putDataHeader, putReply, wireError } from "../wire/codec.ts";
import type { RequestHeader } from "../wire/request-header.ts";
import type { PayloadBuffer } from "./payload-pool.ts";

/** Bytes of the area for headers. */
export const REPLY_BYTES = 64 * 1024;
/** With this many bytes in use the batch is full: the rest has room for the longest reply, a block status. */
const REPLY_BYTES_FULL = 24 * 1024;
/** Replies are sent when this many bytes of payload are waiting, so that the peer has work meanwhile. */
const PAYLOAD_BYTES_FULL = 1024 * 1024;
/** The limit before the next reply, which takes up to two. */
const IOVECS_FULL = UIO_MAXIOV - 1;

export class ReplyBatch {
  /** Sends that moved bytes. */
  sends = 0;
  /** How often everything was sent. */
  emptied = 0;
  readonly #address: number;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #structured: boolean;
  readonly #iovecs = new IovecTable(UIO_MAXIOV);
  readonly #message = new SendMessage(this.#iovecs);
  /** The part of the area that is in use. */
  #end = 0;
  #payloadBytes = 0;
  /** The first entry that has not been sent. */
  #first = 0;
  /** The buffers with payloads, until everything is sent. */
  readonly #buffers: (PayloadBuffer | undefined)[] = Array.from({ length: UIO_MAXIOV }, () => undefined);
  #bufferCount = 0;

  /** @param address of `bytes`, which are {@link REPLY_BYTES} that do not move. */
  constructor(address: number, bytes: Uint8Array, structured: boolean) {
    this.#address = address;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#structured = structured;
  }

  get isEmpty(): boolean {
    return this.#end === 0;
  }

  /** Whether it is time to send. */
  get isFull(): boolean {
    return (
      this.#payloadBytes >= PAYLOAD_BYTES_FULL ||
      this.#iovecs.count >= IOVECS_FULL ||
      this.#end >= REPLY_BYTES_FULL
    );
  }

  /** Bytes that the socket has not accepted. */
  get unsentBytes(): number {
    let bytes = 0;
    for (let entry = this.#first; entry < this.#iovecs.count; entry += 1) bytes += this.#iovecs.length(entry);
    return bytes;
  }

  /** Queues a reply without payload. `status` is an errno, 0 for success. */
  status(request: RequestHeader, status: number): void {
    const at = this.#end;
    if (!this.#structured) {
      putReply(this.#view, at, wireError(status), request);
      this.#append(nbd_reply.size);
    } else if (status === 0) {
      putChunk(this.#view, at, NBD_REPLY_TYPE_NONE, 0, request);
      this.#append(nbd_structured_reply.size);
    } else {
      this.#appendChunk(errorChunk(status, request));
    }
  }

  /**
   * Queues the reply to a successful READ. The data stay where they are until they have been sent.
   * @param buffer holds them, and is given back then; undefined if they are in the device's memory.
   */
  data(read: RequestHeader, address: number, buffer: PayloadBuffer | undefined): void {
    if (this.#structured) {
      putDataHeader(this.#view, this.#end, read);
      this.#append(DATA_HEADER_BYTES);
    } else {
      putReply(this.#view, this.#end, 0, read);
      this.#append(nbd_reply.size);
    }
    this.#iovecs.push(address, read.length);
    this.#payloadBytes += read.length;
    if (buffer === undefined) return;
    this.#buffers[this.#bufferCount] = buffer;
    this.#bufferCount += 1;
  }

  /** Queues the reply to a successful BLOCK_STATUS. */
  extents(request: RequestHeader, extents: readonly Extent[]): void {
    this.#appendChunk(extentsChunk(extents, request));
  }

  /**
   * Sends what is queued. Returns 0 once everything is sent, else -errno: after -EAGAIN the socket is full, and the
   * rest is for the next call.
   * @param flags MSG_DONTWAIT to not wait for a full socket.
   */
  send(fd: number, flags: number): number {
    const iovecs = this.#iovecs;
    while (this.#first < iovecs.count) {
      let sent = this.#message.send(fd, this.#first, flags);
      if (sent === -errno.EINTR) continue;
      if (sent < 0) return sent;
      this.sends += 1;
      while (this.#first < iovecs.count && sent >= iovecs.length(this.#first)) {
        sent -= iovecs.length(this.#first);
        this.#first += 1;
      }
      if (sent > 0) {
        const at = this.#first;
        iovecs.set(at, iovecs.address(at) + sent, iovecs.length(at) - sent);
      }
    }
    this.discard();
    this.emptied += 1;
    return 0;
  }

  /** Discards everything queued. */
  discard(): void {
    for (let index = 0; index < this.#bufferCount; index += 1) {
      this.#buffers[index]?.release();
      this.#buffers[index] = undefined;
    }
    this.#bufferCount = 0;
    this.#iovecs.clear();
    this.#first = 0;
    this.#end = 0;
    this.#payloadBytes = 0;
  }

  #appendChunk(chunk: Uint8Array): void {
    this.#bytes.set(chunk, this.#end);
    this.#append(chunk.length);
  }

  /** Queues the next `length` bytes of the area; adjacent headers share an iovec. */
  #append(length: number): void {
    const iovecs = this.#iovecs;
    const address = this.#address + this.#end;
    const last = iovecs.count - 1;
    if (last >= 0 && iovecs.address(last) + iovecs.length(last) === address) {
      iovecs.set(last, iovecs.address(last), iovecs.length(last) + length);
    } else {
      iovecs.push(address, length);
    }
    this.#end += length;
  }
}
