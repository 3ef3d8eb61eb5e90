/**
 * One NBD connection in its transmission phase, on the event loop: the event pump.
 *
 *     stream ─ chunks ─▶ RequestReader ─▶ RangeOrder ─▶ Dispatch ─▶ device
 *     stream ◀─ one write per turn ─ Outbox ◀─ replies, as the device settles, in any order
 *
 * The sibling of connection.ts for devices that return promises, and for programs that do other things as well. Many
 * requests are in flight at once; one that is slow holds up only those that touch the same bytes. What is in flight
 * is bounded in number and in bytes, by not reading on. It knows nothing of sockets: see stream.ts.
 */
import { within } from "../../serving/deadline.ts";
import type { ExtentsStatus } from "../../dispatch.ts";
import { errno } from "../../uapi/errno.ts";
import { NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_REQUEST_MAGIC } from "../../uapi/nbd.ts";
import type { PoolUser } from "./buffer-pool.ts";
import { commandName } from "../wire/command-name.ts";
import { EventRequest, judge, perform, type RequestOwner } from "./event-request.ts";
import type { Ending, EventOptions, Outlet, Service } from "./event-types.ts";
import { Outbox } from "./outbox.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE } from "../wire/numbers.ts";
import { ReplyWriter } from "./replies.ts";
import { RequestReader } from "./request-reader.ts";
import { Watchdog } from "../../serving/watchdog.ts";

/** Requests in flight at once, where nobody says otherwise: as many as the kernel's client has. */
const QUEUE_DEPTH = 128;
/** Nothing more is read while this many bytes of replies wait for the peer to take them. */
const PENDING_MAX = 1024 * 1024;

export class EventConnection implements RequestOwner, PoolUser {
  readonly statistics = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  /** Why the connection is broken, once it is. */
  fault = "";
  pooledBytes = 0;

  readonly #outlet: Outlet;
  readonly #service: Service;
  readonly #queueDepth: number;
  readonly #options: EventOptions;
  readonly #watchdog: Watchdog<EventRequest> | undefined;
  readonly #reader = new RequestReader();
  readonly #outbox: Outbox;
  readonly #replies: ReplyWriter;
  readonly #over = Promise.withResolvers<Ending>();
  readonly #finished = Promise.withResolvers<void>();
  readonly #spare: EventRequest[] = [];

  /** Requests that have not been answered. */
  #inFlight = 0;
  /** Requests that have been answered though the device still has them. */
  #abandoned = 0;
  /** The write whose payload is coming in. */
  #incoming: EventRequest | undefined;
  /** The reader's header waits for memory. */
  #starved = false;
  #paused = false;
  #turnDue = false;
  #ending: Ending | undefined;
  #peerGone = false;

  constructor(outlet: Outlet, service: Service, options: EventOptions = {}) {
    this.#outlet = outlet;
    this.#service = service;
    this.#options = options;
    this.#queueDepth = options.queueDepth ?? QUEUE_DEPTH;
    this.#outbox = new Outbox((bytes) => outlet.write(bytes));
    this.#replies = new ReplyWriter(this.#outbox, options.structured === true);
    const { requestTimeoutMs } = options;
    if (requestTimeoutMs !== undefined)
      this.#watchdog = new Watchdog(requestTimeoutMs, (request) => this.#abandon(request));
  }

  /**
   * Settles once the connection has ended, nothing is in flight, and all replies are written or have no taker; at
   * the latest `drainMs` after its end. `left` is how many requests the device then still has.
   */
  async outcome(drainMs: number): Promise<{ readonly ending: Ending; readonly left: number }> {
    const ending = await this.#over.promise;
    await within(this.#finished.promise, drainMs);
    this.#watchdog?.stop();
    return { ending, left: this.#inFlight + this.#abandoned };
  }

  /** Whether the peer owes us something: the rest of a request, or the taking of replies. */
  get waitsForPeer(): boolean {
    if (this.#outbox.pendingBytes > 0) return true;
    return !this.#paused && (this.#reader.midRequest || this.#incoming !== undefined);
  }

  // --- what the stream tells ---

  /** The chunk is the connection's from now on. */
  receive(chunk: Uint8Array): void {
    if (this.#ending !== undefined) return;
    this.#reader.feed(chunk);
    this.#decode();
  }

  /** The socket takes bytes again. */
  drained(): void {
    if (this.#outbox.pendingBytes > 0) this.#turn();
  }

  /** The peer sends nothing more; it may still take replies. */
  ended(): void {
    this.#end("closed");
  }

  /** The peer is gone. */
  closed(): void {
    this.#peerGone = true;
    this.#outbox.discard();
    this.#end("closed");
  }

  /** Takes no more requests; those in flight are answered. */
  stop(): void {
    this.#end("stopped");
  }

  memoryFreed(): void {
    this.#scheduleTurn();
  }

  // --- requests in ---

  #decode(): void {
    const reader = this.#reader;
    while (this.#ending === undefined) {
      const incoming = this.#incoming;
      if (incoming !== undefined) {
        if (!reader.payload()) break;
        this.#incoming = undefined;
        this.#start(incoming);
        continue;
      }
      if (this.#inFlight >= this.#queueDepth || this.#outbox.pendingBytes > PENDING_MAX) break;
      if (!this.#starved && !reader.header()) break;
      this.#starved = !this.#begin(reader);
      if (this.#starved) break;
    }
    this.#regulate();
  }

  /** Reads on, unless there is something that could not be taken yet. */
  #regulate(): void {
    const pause = this.#starved || this.#reader.holdsBytes;
    if (pause === this.#paused || this.#ending !== undefined) return;
    this.#paused = pause;
    if (pause) this.#outlet.pause();
    else this.#outlet.resume();
  }

  /** Begins the request whose header has been read. Returns false when there is no memory for it yet. */
  #begin(reader: RequestReader): boolean {
    if (reader.magic !== NBD_REQUEST_MAGIC) {
      this.fault = `a request began with 0x${reader.magic.toString(16)}, not with the magic number`;
      this.#end("broken");
      return true;
    }
    const { command, length } = reader;
    if (command === NBD_CMD_DISC) {
      this.#options.trace?.(command, reader.flags, reader.offset, length, 0);
      this.#end("disconnect");
      return true;
    }
    const request = this.#spare.pop() ?? new EventRequest(this);
    request.reset(reader);
    this.#judge(request);
    const hasPayload = command === NBD_CMD_READ || command === NBD_CMD_WRITE;
    if (hasPayload && request.error === 0) {
      request.buffer = this.#service.pool.take(length, this);
      if (request.buffer === undefined) {
        this.#spare.push(request);
        return false;
      }
    }
    this.#inFlight += 1;
    if (command === NBD_CMD_WRITE) {
      reader.expectPayload(request.buffer?.view(length), length);
      this.#incoming = request;
    } else {
      this.#start(request);
    }
    return true;
  }

  #judge(request: EventRequest): void {
    judge(request, this.#service.dispatch, this.#replies.structured, this.#options.allocation === true);
    // A device that answers nothing gets nothing more.
    const hangs = this.#abandoned >= this.#queueDepth || this.#service.order.isFull;
    if (hangs && request.error === 0) request.error = errno.EIO;
  }

  /** The request is complete: it goes to the device as soon as nothing is in its way. */
  #start(request: EventRequest): void {
    if (request.error !== 0) return this.settled(request, request.error);
    this.#watchdog?.watch(request);
    const { order } = this.#service;
    if (order.isFree(request)) this.proceed(request);
    else order.wait(request);
  }

  proceed(request: EventRequest): void {
    // It was given up while it waited: too late to do it.
    if (request.abandoned) return this.settled(request, errno.EIO);
    if (request.command === NBD_CMD_BLOCK_STATUS) return this.#proceedExtents(request);
    const status = perform(request, this.#service.dispatch);
    if (typeof status === "number") return this.settled(request, status);
    if (request.place < 0) this.#service.order.insert(request);
    void status.then(request.settle);
  }

  #proceedExtents(request: EventRequest): void {
    const returned = this.#service.dispatch.extents(request.offset, request.length);
    if (!(returned instanceof Promise)) return this.#extentsSettled(request, returned);
    if (request.place < 0) this.#service.order.insert(request);
    void returned.then((extents) => this.#extentsSettled(request, extents));
  }

  // --- replies out ---

  #extentsSettled(request: EventRequest, extents: ExtentsStatus): void {
    if (typeof extents === "number" || request.abandoned) {
      return this.settled(request, typeof extents === "number" ? extents : 0);
    }
    const one = (request.flags & NBD_CMD_FLAG_REQ_ONE) !== 0;
    this.#replies.extents(request, one ? extents.slice(0, 1) : extents);
    this.#account(request, 0);
    this.#retire(request);
  }

  settled(request: EventRequest, status: number): void {
    if (!request.abandoned) {
      this.#reply(request, status);
      this.#account(request, status);
    }
    this.#retire(request);
  }

  /** A reply that nobody will take is dropped. */
  #reply(request: EventRequest, status: number): void {
    const { command, buffer, length } = request;
    if (command === NBD_CMD_READ && status === 0 && buffer !== undefined) {
      request.buffer = undefined;
      if (this.#peerGone) buffer.release();
      else this.#replies.data(request, request.offset, buffer.view(length), buffer.release);
    } else if (!this.#peerGone) {
      this.#replies.status(request, status);
    }
  }

  #account({ command, flags, offset, length }: EventRequest, status: number): void {
    const { statistics } = this;
    this.#inFlight -= 1;
    statistics.requests += 1;
    if (status !== 0) statistics.errors += 1;
    else if (command === NBD_CMD_READ) statistics.bytesRead += length;
    else if (command === NBD_CMD_WRITE) statistics.bytesWritten += length;
    this.#options.trace?.(command, flags, offset, length, status);
    this.#scheduleTurn();
  }

  /** The device is done with the request, and so is everybody else. */
  #retire(request: EventRequest): void {
    if (request.abandoned) {
      this.#abandoned -= 1;
      this.#scheduleTurn();
    }
    this.#watchdog?.release(request);
    request.releaseBuffer();
    if (request.place >= 0) this.#service.order.remove(request);
    if (this.#spare.length < this.#queueDepth) this.#spare.push(request);
  }

  /** Answers for the device, which has not. The buffer stays the device's until it does. */
  #abandon(request: EventRequest): void {
    const { command, offset, length } = request;
    const seconds = (this.#options.requestTimeoutMs ?? 0) / 1000;
    this.#options.log?.(
      `${commandName(command)} offset ${offset} length ${length} took more than ${seconds} s: answered with EIO`,
    );
    if (!this.#peerGone) this.#replies.status(request, errno.EIO);
    this.#account(request, errno.EIO);
    request.abandoned = true;
    this.#abandoned += 1;
  }

  // --- turns and the end ---

  /** Everything that settles in this turn of the event loop is written at its end. */
  #scheduleTurn(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#outbox.flush() === "closed") return this.closed();
    if (this.#paused || this.#starved) this.#decode();
    if (this.#ending !== undefined) this.#finishIfDone();
  }

  #end(ending: Ending): void {
    this.#ending ??= ending;
    this.#over.resolve(this.#ending);
    const incoming = this.#incoming;
    this.#incoming = undefined;
    this.#starved = false;
    this.#reader.discard();
    if (incoming !== undefined) {
      this.#inFlight -= 1;
      this.#retire(incoming);
    }
    this.#scheduleTurn();
  }

  #finishIfDone(): void {
    if (this.#inFlight > 0 || this.#abandoned > 0 || this.#outbox.pendingBytes > 0) return;
    this.#service.pool.forget(this);
    this.#outlet.end();
    this.#finished.resolve();
  }
}
