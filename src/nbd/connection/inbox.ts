/**
 * What a connection has received and not decoded yet. One call receives all available headers, with short payloads,
 * into a buffer. The rest of a payload goes straight to its place, and the next headers come with it.
 */
import { copy, Memory } from "../../libc/memory.ts";
import { IovecTable } from "../../libc/iovec.ts";
import { receive, ReceiveMessage } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { nbd_request } from "../../uapi/nbd.ts";
import type { Clock, Times } from "../../serving/clock.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import { MSG_DONTWAIT } from "../../uapi/socket.ts";
import type { RequestHeader } from "../wire/request-header.ts";

/** Bytes received at once while requests are small: 30 writes of 4 KiB, or more than 4,000 reads. */
export const INBOX_BYTES = 128 * 1024;
/** Bytes received at once after a long write: room for headers, so that the next payload goes to its place. */
const INBOX_BYTES_LONG = 4096;
const LONG_PAYLOAD = 32 * 1024;
/** An unwanted payload is received to the same few bytes, again and again, for all connections. */
const SINK_BYTES = 128 * 1024;
export const sinkAddress: number = new Memory(SINK_BYTES).address;

export class Inbox {
  /** The bytes that have not been decoded: from `at` to `end`. */
  at = 0;
  end = 0;
  /** Bytes of a payload that are still to come. */
  payloadLeft = 0;
  /** Receives that brought something. */
  receives = 0;
  /** The last receive emptied the socket. */
  isDrained = false;
  /** Receives the rest of a request that has begun to arrive, and nothing after it. */
  holdsBack = false;

  readonly #view: DataView;
  readonly #address: number;
  readonly #bytes: Uint8Array;
  readonly #iovecs = new IovecTable(2);
  readonly #message = new ReceiveMessage(this.#iovecs);
  readonly #clock: Clock;
  /** When the latest bytes arrived: all whole requests arrived with them, or were begun before. */
  #arrived = 0;
  #limit = INBOX_BYTES;
  #payloadAddress = 0;
  #payloadWanted = true;
  /** How long to poll for the next request, and for the rest of one, which its sender is about to send. */
  readonly #requestPoll: HaltPoll;
  readonly #payloadPoll: HaltPoll;
  /** When somebody else began to wait for the socket in our place, by performance.now(); 0 if nobody does. */
  #waitingSince = 0;

  /**
   * @param address of `bytes`, which are {@link INBOX_BYTES} that do not move.
   * @param clock read whenever something has arrived.
   * @param busyPollMs see {@link HaltPoll}.
   */
  constructor(address: number, bytes: Uint8Array, clock: Clock, busyPollMs: number | undefined) {
    this.#address = address;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#clock = clock;
    this.#requestPoll = new HaltPoll(busyPollMs);
    this.#payloadPoll = new HaltPoll(busyPollMs);
  }

  /** Whether there is a whole header at `at`. */
  get hasRequest(): boolean {
    return this.end - this.at >= nbd_request.size;
  }

  /** Whether the stream is in the middle of a request. */
  get midRequest(): boolean {
    return this.payloadLeft > 0 || this.end > this.at;
  }

  /** Takes bytes that were received elsewhere, before the first receive; they fit. */
  feed(bytes: Uint8Array): void {
    this.#bytes.set(bytes);
    this.end = bytes.length;
    this.#arrived = this.#clock.read();
  }

  /** Decodes the header at {@link at}, which must be complete. */
  decode(request: RequestHeader & Times): void {
    request.decode(this.#view, this.at);
    request.arrived = this.#arrived;
    request.begun = 0;
  }

  /**
   * The next `length` bytes are a payload and go to `address`, beginning with those already here.
   * @param wanted false: `address` is {@link sinkAddress}.
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

  /** One receive without waiting. Returns what recv(2) does, or -errno: -EAGAIN if there is nothing. */
  receive(fd: number): number {
    const received = this.#receive(fd, MSG_DONTWAIT);
    if (this.#waitingSince !== 0 && received > 0) {
      this.#poll.waited(performance.now() - this.#waitingSince, true);
      this.#waitingSince = 0;
    }
    return received;
  }

  /**
   * One receive that waits as long as the socket's time-out. First it polls for a while, where that pays: to sleep and
   * be woken may take longer.
   * @param sleep false: somebody else will wait for the socket, and it returns -EAGAIN.
   */
  await(fd: number, sleep: boolean): number {
    const poll = this.#poll;
    const started = performance.now();
    const until = started + poll.limitMs;
    if (poll.limitMs > 0) {
      let now = started;
      do {
        const received = this.#receive(fd, MSG_DONTWAIT);
        now = performance.now();
        if (received === -errno.EAGAIN) continue;
        poll.waited(now - started, false);
        return received;
      } while (now < until);
    }
    if (!sleep) {
      this.#waitingSince = started;
      return -errno.EAGAIN;
    }
    const received = this.#receive(fd, 0);
    poll.waited(performance.now() - started, true);
    return received;
  }

  /** Bytes of a header that are still to come; 0 between two requests. */
  get #rest(): number {
    return this.end > this.at ? nbd_request.size - (this.end - this.at) : 0;
  }

  get #poll(): HaltPoll {
    return this.payloadLeft > 0 ? this.#payloadPoll : this.#requestPoll;
  }

  #receive(fd: number, flags: number): number {
    const received = this.payloadLeft > 0 ? this.#receivePayload(fd, flags) : this.#receiveHeaders(fd, flags);
    if (received <= 0) return received;
    this.receives += 1;
    this.#arrived = this.#clock.read();
    return received;
  }

  #receiveHeaders(fd: number, flags: number): number {
    if (this.at > 0) {
      // Less than a header is left.
      this.#bytes.copyWithin(0, this.at, this.end);
      this.end -= this.at;
      this.at = 0;
    }
    const room = this.holdsBack ? this.#rest : this.#limit - this.end;
    if (room === 0) return -errno.EAGAIN;
    const received = receive(fd, this.#address + this.end, room, flags);
    this.isDrained = received < room;
    if (received > 0) this.end += received;
    return received;
  }

  /** Receives the rest of a payload to its place, and what follows it to the buffer, which is empty at this point. */
  #receivePayload(fd: number, flags: number): number {
    const left = this.#payloadWanted ? this.payloadLeft : Math.min(this.payloadLeft, SINK_BYTES);
    const limit = left === this.payloadLeft && !this.holdsBack ? this.#limit : 0;
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
