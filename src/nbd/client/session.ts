/**
 * Requests to a server that may go away and come back. Then unanswered requests are sent again, after the writes that
 * the server may have lost (see unflushed.ts), and new ones wait meanwhile: a restart of the server is a pause. If one
 * of several connections ends, all are made anew, because the server itself may have ended.
 *
 * A server that outlives its connection may still be working on old requests. As with every client of the protocol, it
 * must finish or drop them before it answers a later request for the same bytes.
 */
import { ErrnoError } from "../../errors.ts";
import type { Extent } from "../../device.ts";
import { errorText } from "../../libc/errno.ts";
import { errno } from "../../uapi/errno.ts";
import { NBD_CMD_FLUSH, NBD_CMD_READ } from "../../uapi/nbd.ts";
import { NBD_CMD_BLOCK_STATUS } from "../wire/numbers.ts";
import { Connection } from "./connection.ts";
import { DirectReceiver } from "./direct-receiver.ts";
import type { Established } from "./establish.ts";
import { canFlush, type ExportFacts, isReadOnly } from "./facts.ts";
import { Reconnection } from "./reconnection.ts";
import type { Remote } from "./remote.ts";
import { Repeats } from "./repeats.ts";
import type { ClientRequest } from "./request.ts";
import { RequestTable } from "./request-table.ts";
import { UnflushedWrites } from "./unflushed.ts";

export interface SessionOptions {
  /** Connections at once, where the server allows several. */
  readonly connections: number;
  readonly log: (line: string) => void;
}

/** For a server that may not have flushed: one write that is not covered. */
const NOTHING_KNOWN = { first: 0, end: 1 } as const;

export class Session {
  /** As the users of the device know them. */
  readonly facts: ExportFacts;
  readonly #remote: Remote;
  readonly #log: (line: string) => void;
  readonly #reconnection: Reconnection;
  readonly #table = new RequestTable();
  readonly #receiver = DirectReceiver.make();
  /** The requests to send, from `#head` on. */
  #queue: ClientRequest[] = [];
  #head = 0;
  /** Empty while the server is away. */
  #connections: readonly Connection[] = [];
  readonly #unflushed: UnflushedWrites | undefined;
  #repeats: Repeats | undefined;
  #isFlushing = false;
  /** The error for the next flush: earlier writes may be lost. */
  #loss: ErrnoError | undefined;
  #pumpDue = false;
  #isClosed = false;

  constructor(remote: Remote, { facts, links }: Established, options: SessionOptions) {
    this.#remote = remote;
    this.#log = options.log;
    this.#reconnection = new Reconnection(remote, facts, options.connections, options.log);
    this.facts = facts;
    if (canFlush(facts) && !isReadOnly(facts)) this.#unflushed = new UnflushedWrites();
    this.#adopt({ facts, links });
  }

  /**
   * @param buffer filled by a read and sent by a write; lent until the promise settles.
   * @param flags NBD_CMD_FLAG_*. The range must be one that the server takes. Rejects with an ErrnoError.
   */
  submit(command: number, flags: number, offset: number, length: number, buffer?: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const request = this.#begin(command, flags, offset, length, buffer);
    request.resolve = resolve;
    request.reject = reject;
    return promise;
  }

  /** The server's extents of the range: at least one. */
  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly Extent[]>();
    const request = this.#begin(NBD_CMD_BLOCK_STATUS, 0, offset, length, undefined);
    request.resolve = () => resolve([...request.extents]);
    request.reject = reject;
    return promise;
  }

  /** Whether the server is away and everything that it has answered was flushed. */
  get isAwayAndFlushed(): boolean {
    const { first, end } = this.#unflushed ?? NOTHING_KNOWN;
    return this.#connections.length === 0 && first === end && this.#loss === undefined;
  }

  /** Unanswered requests will never be answered. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#reconnection.close();
    for (const connection of this.#connections) connection.leave();
    this.#connections = [];
    this.#repeats = undefined;
    for (const request of this.#table.inUse()) request.reject(this.#closedError());
    this.#unflushed?.close();
    await this.#receiver?.close();
  }

  #begin(
    command: number,
    flags: number,
    offset: number,
    length: number,
    buffer: Uint8Array | undefined,
  ): ClientRequest {
    if (this.#isClosed) throw this.#closedError();
    const request = this.#table.take();
    request.command = command;
    request.flags = flags;
    request.offset = offset;
    request.length = length;
    request.buffer = buffer;
    this.#queue.push(request);
    this.#schedulePump();
    return request;
  }

  #closedError(): ErrnoError {
    return new ErrnoError("ESHUTDOWN", `${this.#remote.uri} is not in use any more`);
  }

  // --- sending ---

  /** Sends all requests of one turn of the event loop together. */
  #schedulePump(): void {
    if (this.#pumpDue) return;
    this.#pumpDue = true;
    queueMicrotask(this.#pump);
  }

  readonly #pump = (): void => {
    this.#pumpDue = false;
    if (this.#repeats?.send(this.#send) === true) this.#repeats = undefined;
    if (this.#repeats === undefined) this.#sendQueue();
    for (const connection of this.#connections) connection.flush();
  };

  #sendQueue(): void {
    if (this.#connections.length === 0) return;
    for (let request = this.#queue[this.#head]; request !== undefined; request = this.#queue[this.#head]) {
      if (!this.#hasRoomFor(request)) {
        if (!this.#flushOwn()) return;
        continue;
      }
      if (!this.#send(request)) return;
      this.#head += 1;
    }
    this.#queue.length = 0;
    this.#head = 0;
  }

  /** Whether there is room to keep the write once it is answered. */
  #hasRoomFor(request: ClientRequest): boolean {
    if (this.#unflushed === undefined || !changesData(request) || request.isReserved) return true;
    return this.#unflushed.reserve(request);
  }

  /** Sends it on the least busy connection. Returns false if none has room. */
  readonly #send = (request: ClientRequest): boolean => {
    let best = -1;
    let least = Infinity;
    for (let index = 0; index < this.#connections.length; index += 1) {
      const inFlight = this.#connections[index]?.inFlight ?? Infinity;
      if (inFlight < least) [best, least] = [index, inFlight];
    }
    const connection = this.#connections[best];
    // A connection may end in the middle of a call, and all others with it.
    if (connection?.put(request) !== true || this.#connections[best] !== connection) return false;
    request.sentOn = best;
    if (request.command === NBD_CMD_FLUSH) request.coverage = this.#unflushed?.end ?? 0;
    return true;
  };

  /** Puts a flush first in the queue if it is time. Returns whether it did. */
  #flushOwn(): boolean {
    if (this.#isFlushing || this.#unflushed?.isHalfFull !== true) return false;
    this.#isFlushing = true;
    const request = this.#begin(NBD_CMD_FLUSH, 0, 0, 0, undefined);
    request.isOwn = true;
    this.#queue.pop();
    this.#queue.splice(this.#head, 0, request);
    return true;
  }

  // --- replies ---

  #answered(request: ClientRequest): void {
    const connection = this.#connections[request.sentOn];
    connection?.answered(request);
    // The server says that it shuts down: ask the next one.
    if (request.error === errno.ESHUTDOWN) return this.#lost("the server is shutting down");
    const failure = request.error === 0 ? undefined : this.#failure(request);
    if (request.isRepeat) {
      if (failure !== undefined)
        this.#lose(failure, "a write that it had answered before cannot be repeated");
      this.#repeats?.done(request);
    } else if (request.command === NBD_CMD_FLUSH) {
      this.#flushed(request, failure);
    } else {
      this.#settle(request, failure);
    }
    this.#table.give(request);
    if (this.#head < this.#queue.length || this.#repeats !== undefined) this.#schedulePump();
  }

  #settle(request: ClientRequest, failure: ErrnoError | undefined): void {
    const unflushed = this.#unflushed;
    if (failure !== undefined) {
      unflushed?.release(request);
      return request.reject(failure);
    }
    if (request.isReserved) {
      unflushed?.keep(request);
      this.#flushOwn();
    }
    request.resolve();
  }

  #flushed(request: ClientRequest, failure: ErrnoError | undefined): void {
    if (request.isOwn) {
      this.#isFlushing = false;
      if (failure !== undefined) this.#lose(failure, "a flush failed");
    }
    // The server has reported the failed flush; nobody knows whether it still has the data.
    if (failure === undefined || request.isOwn) this.#unflushed?.forget(request.coverage);
    const loss = request.isOwn ? undefined : this.#loss;
    if (loss !== undefined) this.#loss = undefined;
    const reason = failure ?? loss;
    if (reason === undefined) request.resolve();
    else request.reject(reason);
  }

  #failure(request: ClientRequest): ErrnoError {
    const text = request.errorText === "" ? errorText(request.error) : request.errorText;
    return new ErrnoError(request.error, `${this.#remote.uri}: ${text}`);
  }

  /** Notes that answered writes may be lost: the next flush fails with the reason. */
  #lose(failure: ErrnoError, what: string): void {
    this.#loss ??= new ErrnoError(
      "EIO",
      `${failure.message}: ${what}, and what was written since may be lost`,
    );
    this.#log(`${failure.message}: ${what}; the next flush fails`);
  }

  // --- the server's absence ---

  #lost(reason: string): void {
    if (this.#isClosed) return;
    for (const connection of this.#connections) connection.drop();
    this.#connections = [];
    this.#repeats = undefined;
    this.#requeue();
    void this.#reconnect(reason);
  }

  async #reconnect(reason: string): Promise<void> {
    const established = await this.#reconnection.again(reason);
    if (established !== undefined) this.#adopt(established);
  }

  /** Puts the unanswered requests first. */
  #requeue(): void {
    const unanswered: ClientRequest[] = [];
    for (const request of this.#table.inUse()) {
      if (request.sentOn < 0) continue;
      if (request.isRepeat) {
        this.#table.give(request);
        continue;
      }
      request.rewind();
      unanswered.push(request);
    }
    this.#queue = [...unanswered, ...this.#queue.slice(this.#head)];
    this.#head = 0;
  }

  #adopt({ links }: Established): void {
    this.#connections = links.map((link, index) => {
      const connection: Connection = new Connection(link, {
        find: (cookie, serial) => this.#table.find(cookie, serial, index),
        done: (request) => this.#answered(request),
        hasRoom: () => this.#schedulePump(),
        lost: (reason) => this.#lost(reason),
      });
      return connection;
    });
    if (this.#unflushed !== undefined && this.#unflushed.end > this.#unflushed.first)
      this.#repeats = new Repeats(this.#unflushed, this.#table);
    for (const connection of this.#connections) connection.start(this.#receiver);
    this.#schedulePump();
  }
}

function changesData({ command }: ClientRequest): boolean {
  return command !== NBD_CMD_READ && command !== NBD_CMD_FLUSH && command !== NBD_CMD_BLOCK_STATUS;
}
