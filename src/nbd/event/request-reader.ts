/**
 * Takes requests out of a stream that comes in chunks of any size. It keeps chunks that nobody has taken yet, so
 * that whoever decodes can stop at any point and go on later. Pure: bytes in, requests out.
 */
import { copyBytes } from "../../libc/memory.ts";
import { nbd_request } from "../../uapi/nbd.ts";
import {
  requestCommand,
  requestCookieHigh,
  requestCookieLow,
  requestFlags,
  requestLength,
  requestMagic,
  requestOffset,
} from "../wire/codec.ts";

export class RequestReader {
  /** The request that {@link header} has decoded last; offset and length in bytes. */
  magic = 0;
  command = 0;
  flags = 0;
  offset = 0;
  length = 0;
  cookieHigh = 0;
  cookieLow = 0;

  /** The chunk that is being read, from `#at` on, and those after it. */
  #chunk: Uint8Array = new Uint8Array();
  #view = new DataView(this.#chunk.buffer);
  #at = 0;
  readonly #later: Uint8Array[] = [];

  /** A header whose bytes are spread over chunks. */
  readonly #split = new Uint8Array(new ArrayBuffer(nbd_request.size));
  readonly #splitView = new DataView(this.#split.buffer);
  #splitLength = 0;

  /** Where the payload goes; undefined while it is thrown away. */
  #target: Uint8Array | undefined;
  #targetAt = 0;
  #payloadLeft = 0;

  /** Adds what has come in. The chunk is the reader's until it has been read. */
  feed(chunk: Uint8Array): void {
    if (this.#at < this.#chunk.length) this.#later.push(chunk);
    else this.#open(chunk);
  }

  /** Whether there are bytes that have not been taken. */
  get holdsBytes(): boolean {
    return this.#at < this.#chunk.length || this.#later.length > 0;
  }

  /** Whether the stream stands within a request: the rest of it is still to come. */
  get midRequest(): boolean {
    return this.#payloadLeft > 0 || this.#splitLength > 0;
  }

  get payloadPending(): boolean {
    return this.#payloadLeft > 0;
  }

  /** Decodes the next header. Returns false when it is not all there yet. */
  header(): boolean {
    if (this.#splitLength === 0 && this.#chunk.length - this.#at >= nbd_request.size) {
      this.#decode(this.#view, this.#at);
      this.#at += nbd_request.size;
      return true;
    }
    while (this.#splitLength < nbd_request.size) {
      if (!this.#available()) return false;
      const take = Math.min(nbd_request.size - this.#splitLength, this.#chunk.length - this.#at);
      this.#split.set(this.#chunk.subarray(this.#at, this.#at + take), this.#splitLength);
      this.#splitLength += take;
      this.#at += take;
    }
    this.#splitLength = 0;
    this.#decode(this.#splitView, 0);
    return true;
  }

  /** From now on `length` bytes are payload; without a target they are thrown away. */
  expectPayload(target: Uint8Array | undefined, length: number): void {
    this.#target = target;
    this.#targetAt = 0;
    this.#payloadLeft = length;
  }

  /** Moves what there is of the payload to its place. Returns true once it is complete. */
  payload(): boolean {
    while (this.#payloadLeft > 0) {
      if (!this.#available()) return false;
      const take = Math.min(this.#payloadLeft, this.#chunk.length - this.#at);
      if (this.#target !== undefined) copyBytes(this.#target, this.#targetAt, this.#chunk, this.#at, take);
      this.#targetAt += take;
      this.#at += take;
      this.#payloadLeft -= take;
    }
    this.#target = undefined;
    return true;
  }

  /** What has not been taken is of no interest any more. */
  discard(): void {
    this.#later.length = 0;
    this.#chunk = new Uint8Array();
    this.#at = 0;
    this.#target = undefined;
    this.#payloadLeft = 0;
    this.#splitLength = 0;
  }

  #available(): boolean {
    while (this.#at >= this.#chunk.length) {
      const next = this.#later.shift();
      if (next === undefined) return false;
      this.#open(next);
    }
    return true;
  }

  #open(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#at = 0;
  }

  #decode(view: DataView, at: number): void {
    this.magic = requestMagic(view, at);
    this.command = requestCommand(view, at);
    this.flags = requestFlags(view, at);
    this.offset = requestOffset(view, at);
    this.length = requestLength(view, at);
    this.cookieHigh = requestCookieHigh(view, at);
    this.cookieLow = requestCookieLow(view, at);
  }
}
