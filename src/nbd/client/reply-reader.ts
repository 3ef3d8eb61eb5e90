/**
 * Reads replies, simple and structured, as their bytes arrive, in any pieces. The data of a read is copied once, to its
 * destination. A server is not trusted: everything is checked, and invalid replies are a {@link ProtocolError}.
 */
import { errno } from "../../uapi/errno.ts";
import { NBD_CMD_READ, NBD_REPLY_MAGIC, nbd_reply } from "../../uapi/nbd.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbd_structured_reply,
} from "../wire/numbers.ts";
import type { ClientRequest } from "./request.ts";

export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

export interface ReplyTaker {
  /** The request of this cookie and serial number that the server has; undefined when it has none. */
  readonly find: (cookie: number, serial: number) => ClientRequest | undefined;
  /** Its reply is complete: `request.error` says what came of it. */
  readonly done: (request: ClientRequest) => void;
}

/** The longest part of a reply that is not data, in bytes: the extents of a server with many. */
const DETAIL_BYTES_MAX = 16 * 2 ** 20;
/** Shorter data, in bytes, is received together with what follows. */
const PLACE_BYTES = 8 * 1024;
const DATA_OFFSET_BYTES = 8;
const HOLE_BYTES = 12;
const EXTENT_BYTES = 8;
/** The most extents that we take from one reply. */
const EXTENTS_MAX = 4096;
const ERROR_TYPES = 2 ** 15;
const WORD = 2 ** 32;
const decoder = new TextDecoder();

export class ReplyReader {
  readonly #taker: ReplyTaker;
  /** The header of a reply, then whatever follows it other than data. */
  readonly #header = new Uint8Array(new ArrayBuffer(nbd_structured_reply.size + DATA_OFFSET_BYTES));
  readonly #headerView = new DataView(this.#header.buffer);
  #detail = this.#header;
  #detailView = this.#headerView;
  #have = 0;
  #need = 4;
  #read: () => void = this.#readMagic;
  /** The request whose data is being received, its destination, and how much is left. */
  #request: ClientRequest | undefined;
  #at = 0;
  #left = 0;
  /** The type of the chunk being read. */
  #type = 0;
  #isLast = true;
  #length = 0;

  constructor(taker: ReplyTaker) {
    this.#taker = taker;
  }

  /** @throws ProtocolError, after which the connection is useless. */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      at = this.#left > 0 ? this.#takeData(bytes, at) : this.#takeDetail(bytes, at);
    }
  }

  /** Where to receive the next bytes, if they are many: then call {@link placed}. Undefined: call {@link push}. */
  place(): Uint8Array | undefined {
    if (this.#left < PLACE_BYTES) return undefined;
    return this.#request?.buffer?.subarray(this.#at, this.#at + this.#left);
  }

  /** `count` bytes have arrived in their place. @throws ProtocolError, as {@link push}. */
  placed(count: number): void {
    this.#at += count;
    this.#left -= count;
    if (this.#left === 0) this.#chunkDone();
  }

  #takeData(bytes: Uint8Array, at: number): number {
    const count = Math.min(this.#left, bytes.byteLength - at);
    this.#request?.buffer?.set(bytes.subarray(at, at + count), this.#at);
    this.placed(count);
    return at + count;
  }

  #takeDetail(bytes: Uint8Array, at: number): number {
    const count = Math.min(this.#need - this.#have, bytes.byteLength - at);
    // Mostly a few bytes: a view of them would cost more.
    for (let index = 0; index < count; index += 1) this.#detail[this.#have + index] = bytes[at + index] ?? 0;
    this.#have += count;
    if (this.#have === this.#need) this.#read();
    return at + count;
  }

  #readMagic(): void {
    const magic = this.#headerView.getUint32(nbd_reply.magic);
    if (magic === NBD_REPLY_MAGIC) this.#want(nbd_reply.size, this.#readSimple);
    else if (magic === NBD_STRUCTURED_REPLY_MAGIC) this.#want(nbd_structured_reply.size, this.#readChunk);
    else throw new ProtocolError("it sent what is no reply");
  }

  #readSimple(): void {
    const view = this.#headerView;
    const request = this.#find(view.getUint32(nbd_reply.cookie), view.getUint32(nbd_reply.cookie + 4));
    request.error = view.getUint32(nbd_reply.error);
    this.#isLast = true;
    if (request.error === 0 && request.command === NBD_CMD_READ) this.#wantData(0, request.length);
    else this.#chunkDone();
  }

  #readChunk(): void {
    const view = this.#headerView;
    const cookie = nbd_structured_reply.cookie;
    const { command } = this.#find(view.getUint32(cookie), view.getUint32(cookie + 4));
    this.#type = view.getUint16(nbd_structured_reply.type);
    this.#isLast = (view.getUint16(nbd_structured_reply.flags) & NBD_REPLY_FLAG_DONE) !== 0;
    this.#length = view.getUint32(nbd_structured_reply.length);
    if (this.#type === NBD_REPLY_TYPE_NONE && this.#length === 0) return this.#chunkDone();
    if (
      this.#type === NBD_REPLY_TYPE_OFFSET_DATA &&
      command === NBD_CMD_READ &&
      this.#length > DATA_OFFSET_BYTES
    )
      return this.#want(nbd_structured_reply.size + DATA_OFFSET_BYTES, this.#readDataOffset);
    if (this.#length === 0 || this.#length > DETAIL_BYTES_MAX)
      throw new ProtocolError(`it sent a part of a reply of ${this.#length} bytes`);
    this.#detail = new Uint8Array(new ArrayBuffer(this.#length));
    this.#detailView = new DataView(this.#detail.buffer);
    this.#have = 0;
    this.#want(this.#length, this.#readDetail);
  }

  #readDataOffset(): void {
    const length = this.#length - DATA_OFFSET_BYTES;
    this.#wantData(this.#place(this.#headerView, nbd_structured_reply.size, length), length);
  }

  /** Reads the part of a chunk that is not data. */
  #readDetail(): void {
    const view = this.#detailView;
    const request = this.#request;
    if (request === undefined) return;
    if (this.#type >= ERROR_TYPES) readError(request, this.#type, view);
    else if (this.#type === NBD_REPLY_TYPE_OFFSET_HOLE && this.#length === HOLE_BYTES) this.#readHole(view);
    else if (this.#type === NBD_REPLY_TYPE_BLOCK_STATUS && request.command === NBD_CMD_BLOCK_STATUS)
      readExtents(request, view);
    else throw new ProtocolError(`it sent a part of a reply of the unknown kind ${this.#type}`);
    this.#chunkDone();
  }

  #readHole(view: DataView): void {
    const length = view.getUint32(DATA_OFFSET_BYTES);
    const at = this.#place(view, 0, length);
    this.#request?.buffer?.fill(0, at, at + length);
    if (this.#request !== undefined) this.#request.received += length;
  }

  /** The offset in the read's buffer of a piece of data, whose offset on the disk is at `at`. */
  #place(view: DataView, at: number, length: number): number {
    const request = this.#request;
    const offset = view.getUint32(at) * WORD + view.getUint32(at + 4);
    const place = offset - (request?.offset ?? 0);
    if (request?.command !== NBD_CMD_READ || place < 0 || place + length > request.length)
      throw new ProtocolError("it sent data that it was not asked for");
    return place;
  }

  #find(serial: number, cookie: number): ClientRequest {
    const request = this.#taker.find(cookie, serial);
    if (request === undefined) throw new ProtocolError("it answered what it was not asked");
    this.#request = request;
    return request;
  }

  #want(bytes: number, then: () => void): void {
    this.#need = bytes;
    this.#read = then;
  }

  #wantData(at: number, length: number): void {
    if (this.#request !== undefined) this.#request.received += length;
    this.#at = at;
    this.#left = length;
  }

  #chunkDone(): void {
    const request = this.#request;
    this.#detail = this.#header;
    this.#detailView = this.#headerView;
    this.#have = 0;
    this.#request = undefined;
    this.#want(4, this.#readMagic);
    if (request === undefined || !this.#isLast) return;
    if (request.error === 0) checkComplete(request);
    this.#taker.done(request);
  }
}

/** Overlapping parts would be counted twice; they are the server's fault. */
function checkComplete(request: ClientRequest): void {
  const { command, received, length } = request;
  if (command === NBD_CMD_READ && received !== length)
    throw new ProtocolError(`it sent ${received} bytes of a read of ${length}`);
  if (command === NBD_CMD_BLOCK_STATUS && request.extents.length === 0)
    throw new ProtocolError("it told no extents");
}

function readError(request: ClientRequest, type: number, view: DataView): void {
  if (view.byteLength < 6) throw new ProtocolError("it sent an error that is cut off");
  // An error chunk with errno 0 must not become success.
  request.error = view.getUint32(0) || errno.EIO;
  const length = Math.min(view.getUint16(4), view.byteLength - 6);
  const isKnown = type === NBD_REPLY_TYPE_ERROR || type === NBD_REPLY_TYPE_ERROR + 1;
  const text = isKnown ? decoder.decode(new Uint8Array(view.buffer, 6, length)) : "";
  request.errorText = text.replaceAll(/\p{Cc}/gu, " ");
}

function readExtents(request: ClientRequest, view: DataView): void {
  // It begins with the number of the metadata context; we asked for only one.
  for (let at = 4; at + EXTENT_BYTES <= view.byteLength; at += EXTENT_BYTES) {
    if (request.extents.length === EXTENTS_MAX) return;
    const flags = view.getUint32(at + 4);
    request.extents.push({
      length: view.getUint32(at),
      hole: (flags & NBD_STATE_HOLE) !== 0,
      zero: (flags & NBD_STATE_ZERO) !== 0,
    });
  }
}
