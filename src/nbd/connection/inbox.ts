/**
 * What a tight connection has received and not decoded yet. Headers, and short payloads with them, come to a buffer,
 * as many with one call as there are; the rest of a payload goes straight to its place, and brings the next headers
 * along.
 */
import { copy } from "../../libc/memory.ts";
import { IovecTable } from "../../libc/iovec.ts";
import { receive, ReceiveMessage } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { nbd_request } from "../../uapi/nbd.ts";
import { MSG_DONTWAIT } from "../../uapi/socket.ts";

/** Bytes received at once where the requests are small: 30 writes of 4 KiB, or more than 4,000 reads. */
export const INBOX_BYTES = 128 * 1024;
/** Bytes received at once after a long write: room for headers, so that the next payload goes to its place. */
const INBOX_BYTES_LONG = 4096;
const LONG_PAYLOAD = 32 * 1024;
/** A payload that nobody wants is received to so many bytes, again and again. */
export const SINK_BYTES = 128 * 1024;
/** How long to ask for the rest of a payload before going to sleep, in milliseconds. */
const PAYLOAD_BUSY_MS = 0.05;
/** Where that was in vain, so many payloads are slept for before it is tried again. */
const PAYLOAD_SLEEPS = 8;

export class Inbox {
  readonly view: DataView;
  /** The bytes that have not been decoded: from `at` to `end`. */
  at = 0;
  end = 0;
  /** Bytes of a payload that are still to come. */
  payloadLeft = 0;
  /** Receives that brought something. */
  receives = 0;
  /** The last receive has taken all there was. */
  isDrained = false;

  readonly #address: number;
  readonly #bytes: Uint8Array;
  readonly #iovecs = new IovecTable(2);
  readonly #message = new ReceiveMessage(this.#iovecs);
  #limit = INBOX_BYTES;
  #payloadAddress = 0;
  #payloadWanted = true;
  /** How many payloads are slept for before the next one is asked for over and over. */
  #payloadSleeps = 0;

  /** @param address of `bytes`, which are {@link INBOX_BYTES} that do not move. */
  constructor(address: number, bytes: Uint8Array) {
    this.#address = address;
    this.#bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Whether there is a whole header at `at`. */
  get hasRequest(): boolean {
    return this.end - this.at >= nbd_request.size;
  }

  /** Whether the stream stands within a request. */
  get midRequest(): boolean {
    return this.payloadLeft > 0 || this.end > this.at;
  }

  /** Takes bytes that were received elsewhere, before the first receive; they fit. */
  feed(bytes: Uint8Array): void {
    this.#bytes.set(bytes);
    this.end = bytes.length;
  }

  /**
   * The next `length` bytes are a payload and go to `address`, those first that are here.
   * @param wanted false: at most {@link SINK_BYTES} are written there, whatever the length.
   */
  expectPayload(address: number, length: number, wanted: boolean): void {
    const here = Math.min(length, this.end - this.at);
    if (wanted) copy(address, this.#address + this.at, here);
    this.at += here;
    this.payloadLeft = length - here;
    this.#payloadAddress = wanted ? address + here : address;
    this.#payloadWanted = wanted;
    this.#limit = length >= LONG_PAYLOAD ? INBOX_BYTES_LONG : INBOX_BYTES;
  }

  /**
   * One receive of what is there, or the wait for it. Returns what recv(2) does, or -errno.
   * @param flags MSG_DONTWAIT, where it is not to wait.
   */
  receive(fd: number, flags: number): number {
    const received = this.payloadLeft > 0 ? this.#receivePayload(fd, flags) : this.#receiveHeaders(fd, flags);
    if (received > 0) this.receives += 1;
    return received;
  }

  /**
   * As {@link receive}, after asking the socket over and over for up to `busyMs` where it would wait; a little while in
   * any case for the rest of a payload, which its sender is about to send: to sleep and be woken takes longer.
   */
  receiveBusily(fd: number, flags: number, busyMs: number): number {
    const limitMs = flags === 0 ? this.#busyLimit(busyMs) : 0;
    if (limitMs > 0) {
      const until = performance.now() + limitMs;
      do {
        const received = this.receive(fd, MSG_DONTWAIT);
        if (received !== -errno.EAGAIN) return received;
      } while (performance.now() < until);
      if (this.payloadLeft > 0 && this.#payloadSleeps === 0) this.#payloadSleeps = PAYLOAD_SLEEPS;
    }
    return this.receive(fd, flags);
  }

  #busyLimit(busyMs: number): number {
    if (this.payloadLeft === 0) return busyMs;
    if (this.#payloadSleeps === 0) return Math.max(busyMs, PAYLOAD_BUSY_MS);
    this.#payloadSleeps -= 1;
    return busyMs;
  }

  #receiveHeaders(fd: number, flags: number): number {
    if (this.at > 0) {
      // What is left is less than a header.
      this.#bytes.copyWithin(0, this.at, this.end);
      this.end -= this.at;
      this.at = 0;
    }
    const room = this.#limit - this.end;
    const received = receive(fd, this.#address + this.end, room, flags);
    this.isDrained = received < room;
    if (received > 0) this.end += received;
    return received;
  }

  /** The rest of a payload to its place, and what follows it to the buffer, which is empty at this point. */
  #receivePayload(fd: number, flags: number): number {
    const left = this.#payloadWanted ? this.payloadLeft : Math.min(this.payloadLeft, SINK_BYTES);
    const limit = left === this.payloadLeft ? this.#limit : 0;
    this.#iovecs.clear();
    this.#iovecs.push(this.#payloadAddress, left);
    this.#iovecs.push(this.#address, limit);
    this.at = 0;
    this.end = 0;
    const received = this.#message.receive(fd, flags);
    this.isDrained = received < left + limit;
    if (received > 0) {
      this.end = Math.max(0, received - left);
      this.payloadLeft -= received - this.end;
      if (this.#payloadWanted) this.#payloadAddress += received - this.end;
    }
    return received;
  }
}
