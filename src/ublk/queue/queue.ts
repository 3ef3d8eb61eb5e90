/**
 * One queue of a ublk device: the request loop of this transport.
 *
 *     io_uring_enter ─ completions ─▶ tag ─▶ descriptor ─▶ Dispatch ─▶ device
 *     io_uring_enter ◀─ COMMIT_AND_FETCH ◀─ result, the data in the tag's buffer
 *
 * Every request that the driver can have in flight has a tag. For each tag a command waits in the driver (FETCH); it
 * completes when there is a request, whose description is in memory shared with the driver. The next command of the tag
 * carries the answer and waits for the next request (COMMIT_AND_FETCH).
 *
 * Data moves in one of two ways:
 *   - A device with methods has a buffer for each tag. The driver copies the data of a write there before the request
 *     arrives, and copies that of a read from there with the answer.
 *   - For a device that is memory, the queue names the address in it once it knows the request. The driver copies from
 *     and to there, so there is no second copy. A write costs one more command (NEED_GET_DATA) to name the address.
 *
 * One turn submits the answers of the previous turn, takes the requests that have arrived, and answers those that the
 * device answers at once, with one system call. A slow device does not get all of them in one turn.
 */
import type { Dispatch, Status } from "../../dispatch.ts";
import { unwrap } from "../../libc/errno.ts";
import { copy } from "../../libc/memory.ts";
import { isPassing, type Ring } from "../../libc/uring.ts";
import { Clock } from "../../serving/clock.ts";
import { RangeOrder } from "../../serving/range-order.ts";
import { TimeSlice } from "../../serving/time-slice.ts";
import { Watchdog } from "../../serving/watchdog.ts";
import { errno } from "../../uapi/errno.ts";
import { IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_SINGLE_ISSUER } from "../../uapi/io_uring.ts";
import {
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
  UBLK_IO_OP_WRITE_ZEROES,
  UBLK_IO_RES_NEED_GET_DATA,
  UBLK_IO_RES_OK,
} from "../../uapi/ublk_cmd.ts";
import { makeRing } from "../control/control.ts";
import { Account } from "./account.ts";
import { Descriptors } from "./descriptors.ts";
import type { QueueOptions, QueuePlace } from "./place.ts";
import { type QueueOwner, QueueRequest } from "./request.ts";
import { TagBuffers } from "./tag-buffers.ts";
import { TagCommands } from "./tag-commands.ts";
import { settle } from "./settle.ts";

/** User data of the polls of the eventfds, which have no tags. */
const REFUSE = -1;
const LEAVE = -2;
/** How often to resubmit commands that the kernel refused: it may be short of memory for a moment. */
const HAND_OVER_TRIES = 1000;

export class Queue implements QueueOwner {
  readonly #dispatch: Dispatch;
  readonly #options: QueueOptions;
  readonly #memoryAddress: number;
  readonly #needGetData: boolean;
  /** The driver copies from and to the device's memory. */
  readonly #direct: boolean;
  readonly #place: QueuePlace;
  readonly #requestBytes: number;
  readonly #ring: Ring;
  readonly #commands: TagCommands;
  readonly #descriptors: Descriptors;
  /** For a device that is memory, a single buffer, which takes the data of refused requests. */
  readonly #buffers: TagBuffers;
  readonly #requests: QueueRequest[];
  readonly #order: RangeOrder;
  readonly #watchdog: Watchdog<QueueRequest> | undefined;
  readonly #clock = new Clock();
  readonly #slice = new TimeSlice(this.#clock);
  readonly #account: Account;
  /** Requests that the device has not answered yet. */
  #inFlight = 0;
  /** Those of them that the queue has answered in place of the device. */
  #abandoned = 0;
  /** Tags that the driver has taken back. */
  #gone = 0;
  #refusing = false;
  /** The queue begins no more requests: they are for the next server. */
  #leaving = false;
  #failed = false;
  #closed = false;
  #inTurn = false;
  /** Called when a request is answered outside of a turn: another turn must submit the answer. */
  onAnswer: (() => void) | undefined;

  /**
   * Prepares all that the queue needs; it serves after {@link handOver}. Call it on the thread that will serve it.
   * @param statistics where it counts: see queues/counters.ts.
   */
  constructor(place: QueuePlace, dispatch: Dispatch, statistics: Float64Array, options: QueueOptions = {}) {
    this.#dispatch = dispatch;
    this.#options = options;
    this.#memoryAddress = dispatch.memoryAddress;
    this.#needGetData = place.needGetData;
    this.#direct = place.needGetData && dispatch.memoryAddress >= 0;
    this.#place = place;
    this.#requestBytes = place.requestBytes;
    this.#ring = makeRing(place.depth + 2, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    this.#commands = new TagCommands(this.#ring, place.index, place.depth);
    this.#descriptors = new Descriptors(place.index, place.depth);
    this.#buffers = new TagBuffers(place.depth, place.requestBytes, this.#direct);
    if (place.populated === true) this.#buffers.populate();
    this.#account = new Account(statistics, options.trace, this.#clock, dispatch, place, this.#buffers);
    this.#order = new RangeOrder(this.#account.ledger);
    this.#requests = Array.from({ length: place.depth }, (_, tag) => new QueueRequest(this, tag));
    const { requestTimeoutMs } = options;
    if (requestTimeoutMs !== undefined)
      this.#watchdog = new Watchdog(requestTimeoutMs, (request) => this.#giveUp(request));
    for (const request of this.#requests)
      this.#commands.setAddress(request.tag, this.#buffers.address(request.buffer));
  }

  /**
   * Hands all tags to the driver.
   * @param fd /dev/ublkcN, open for reading and writing; remains the caller's.
   * @throws Error if it does not accept them.
   */
  handOver(fd: number): void {
    const { depth, refuseFd, leaveFd } = this.#place;
    this.#commands.setFile(fd);
    this.#descriptors.map(fd);
    for (let tag = 0; tag < depth; tag += 1) this.#commands.fetch(tag);
    if (refuseFd !== undefined) this.#commands.watch(depth, refuseFd, REFUSE);
    if (leaveFd !== undefined) this.#commands.watch(depth + 1, leaveFd, LEAVE);
    for (let tries = 0; this.#ring.pushed > 0; tries += 1) {
      const taken = this.#ring.enter(0);
      if (taken < 0 && (!isPassing(taken) || tries > HAND_OVER_TRIES)) unwrap(taken, "io_uring_enter");
    }
  }

  /** Whether answers wait for a turn to submit them. */
  get hasAnswers(): boolean {
    return this.#ring.pushed > 0;
  }

  /** Whether requests wait for their device: then the thread must not sleep in {@link turn}. */
  get waitsForDevice(): boolean {
    return this.#inFlight > 0;
  }

  /** Adds to an eventfd(2) whenever there is something to do. */
  wakeBy(eventfd: number): void {
    this.#ring.registerEventfd(eventfd);
  }

  /** Whether requests have arrived and not been begun. */
  get hasRequests(): boolean {
    return this.#ring.ready > 0;
  }

  /** {@link submit}, then {@link begin}. */
  turn(wait: boolean): boolean {
    this.submit(wait);
    return this.begin();
  }

  /**
   * Submits the answers, and looks for requests.
   * @param wait until a request or a signal arrives.
   */
  submit(wait: boolean): void {
    const entered = this.#ring.enter(wait ? 1 : 0);
    if (entered < 0 && !isPassing(entered)) throw new Error(`io_uring_enter failed with ${entered}`);
  }

  /**
   * Begins requests that have arrived, as many as a time slice allows; the others wait for the next turn. Returns false
   * once the driver has taken back all tags, because the device was stopped, or the queue has left.
   */
  begin(): boolean {
    const ring = this.#ring;
    const count = ring.ready;
    this.#inTurn = true;
    this.#slice.begin();
    this.#account.turnBegins();
    let completed = 0;
    while (completed < count && !this.#slice.isOver) completed = this.#complete(completed, count);
    this.#inTurn = false;
    ring.consume(completed);
    this.#account.turnEnds(count - completed, completed);
    return this.#gone < this.#place.depth && !(this.#leaving && this.#inFlight === this.#abandoned);
  }

  /**
   * Handles the completions from `first` on. Returns where to continue: before `count` if the slice is over or
   * something threw, in that case at the same request if it has no answer yet. A queue that refuses calls nothing that
   * could throw again.
   */
  #complete(first: number, count: number): number {
    const ring = this.#ring;
    let index = first;
    try {
      for (; index < count && !this.#slice.isOver; index += 1) {
        const tag = ring.userData(index);
        const result = ring.result(index);
        if (tag === REFUSE) this.#refuse();
        else if (tag === LEAVE) this.#leaving = true;
        else if (this.#leaving && result >= 0) continue;
        else if (result === UBLK_IO_RES_OK) this.#begin(this.#take(tag, index));
        else if (result === UBLK_IO_RES_NEED_GET_DATA) this.#getData(this.#take(tag, index));
        else this.#gone += 1;
        this.#slice.worked();
      }
    } catch (error) {
      const request = this.#requests[ring.userData(index)];
      this.#fail(error);
      return request?.open === true && !request.held ? index : index + 1;
    }
    return index;
  }

  /** Frees everything. Returns -1, or the ring of a queue that left, to close once this thread is gone: settle.ts. */
  close(): number {
    this.#closed = true;
    this.#watchdog?.stop();
    if (this.#leaving) settle(this.#ring);
    else this.#ring.close();
    this.#descriptors.close();
    // A device that still has a buffer may still write to it.
    if (this.#inFlight === 0) this.#buffers.close();
    return this.#leaving ? this.#ring.fd : -1;
  }

  // --- requests in ---

  /** The tag's request, from its descriptor. */
  #take(tag: number, index: number): QueueRequest {
    const request = this.#requests[tag];
    if (request === undefined) throw new Error(`the driver named tag ${tag}`);
    request.open = true;
    this.#account.came(request, index);
    this.#descriptors.read(request);
    return request;
  }

  /** For a write whose data the driver still has: names its address. The write comes again with its data. */
  #getData(request: QueueRequest): void {
    const { tag, offset, length, fua } = request;
    request.refused = this.#whyRefused(length) || this.#dispatch.checkWrite(offset, length, fua);
    this.#commands.setAddress(tag, this.#dataAddress(request, request.refused));
    request.open = false;
    this.#commands.getData(tag);
  }

  #begin(request: QueueRequest): void {
    // A device that answers nothing gets no more requests.
    if (this.#refusing || this.#abandoned >= this.#place.depth) return this.#finish(request, errno.EIO);
    if (this.#inFlight === 0 || this.#order.isFree(request)) return this.proceed(request);
    this.#hold(request);
    this.#order.wait(request);
  }

  proceed(request: QueueRequest): void {
    const waited = request.place.isTaken;
    // It was abandoned while it waited: too late to perform it.
    this.#account.begins(request);
    const status = request.abandoned || this.#closed ? errno.EIO : this.#perform(request);
    this.#account.deviceReturned(request, status);
    if (typeof status === "number") {
      if (waited) this.settled(request, status);
      else this.#finish(request, status);
      return;
    }
    if (!waited) {
      this.#hold(request);
      this.#order.insert(request);
    }
    void status.then(request.settle);
  }

  /** The request is not answered in this turn. */
  #hold(request: QueueRequest): void {
    this.#inFlight += 1;
    request.held = true;
    this.#watchdog?.watch(request);
  }

  #perform(request: QueueRequest): Status {
    const dispatch = this.#dispatch;
    const { offset, length, fua } = request;
    switch (request.operation) {
      case UBLK_IO_OP_READ: {
        const refused = this.#whyRefused(length) || dispatch.checkRead(offset, length);
        if (this.#direct) this.#commands.setAddress(request.tag, this.#dataAddress(request, refused));
        if (refused !== 0) return refused;
        if (this.#memoryAddress < 0) return dispatch.read(this.#buffers.view(request.buffer, length), offset);
        if (!this.#direct) copy(this.#buffers.address(request.buffer), this.#memoryAddress + offset, length);
        return 0;
      }
      case UBLK_IO_OP_WRITE: {
        const refused = this.#needGetData
          ? request.refused
          : this.#whyRefused(length) || dispatch.checkWrite(offset, length, fua);
        if (refused !== 0) return refused;
        if (this.#memoryAddress < 0)
          return dispatch.write(this.#buffers.view(request.buffer, length), offset, fua);
        if (!this.#direct) copy(this.#memoryAddress + offset, this.#buffers.address(request.buffer), length);
        return dispatch.completeWrite(offset, length, fua);
      }
      case UBLK_IO_OP_FLUSH:
        return dispatch.flush();
      case UBLK_IO_OP_DISCARD:
        return dispatch.trim(offset, length, fua);
      case UBLK_IO_OP_WRITE_ZEROES:
        return dispatch.writeZeroes(offset, length, fua, request.noUnmap);
      default:
        // Zone operations, and those of later kernels.
        return errno.EOPNOTSUPP;
    }
  }

  /** Whether the queue itself refuses a request: an errno, or 0. */
  #whyRefused(length: number): number {
    if (this.#refusing) return errno.EIO;
    return length > this.#requestBytes ? errno.EINVAL : 0;
  }

  /** The address for the driver to copy from or to. The data of a refused request must go somewhere, too. */
  #dataAddress(request: QueueRequest, refused: number): number {
    const isDirect = this.#direct && refused === 0;
    return isDirect ? this.#memoryAddress + request.offset : this.#buffers.address(request.buffer);
  }

  // --- answers out ---

  /** The device has answered a request that was held. */
  settled(request: QueueRequest, status: number): void {
    this.#inFlight -= 1;
    request.held = false;
    this.#clock.read();
    this.#watchdog?.release(request);
    if (request.place.isTaken) this.#order.remove(request);
    if (this.#closed) return;
    if (!request.abandoned) return this.#finish(request, status);
    this.#abandoned -= 1;
    this.#buffers.giveBack(request.buffer);
  }

  /** Queues the answer; the next turn submits it. */
  #finish(request: QueueRequest, status: number): void {
    const { tag, operation, length } = request;
    const moved = operation === UBLK_IO_OP_READ || operation === UBLK_IO_OP_WRITE ? length : 0;
    this.#commands.commit(tag, status === 0 ? moved : -status);
    request.open = false;
    if (!this.#inTurn) this.onAnswer?.();
    // It may be the trace that has thrown.
    this.#account.answered(request, status, !this.#failed);
  }

  /** It has taken too long. */
  #giveUp(request: QueueRequest): void {
    try {
      this.#abandon(request);
    } catch (error) {
      // Out of memory for another buffer: a queue that refuses everything already has one.
      this.#fail(error);
    }
    const seconds = (this.#options.requestTimeoutMs ?? 0) / 1000;
    this.#options.log?.(`${request.describe()} took more than ${seconds} s: answered with EIO`);
  }

  /** Gives the device no more requests, and answers those that it has in its place. */
  #refuse(): void {
    this.#refusing = true;
    for (const request of this.#requests) if (request.held && !request.abandoned) this.#abandon(request);
  }

  failed(error: unknown, request: QueueRequest): void {
    this.#fail(error);
    if (request.open && !request.held) this.#finish(request, errno.EIO);
  }

  #fail(error: unknown): void {
    const isFirst = !this.#failed;
    this.#failed = true;
    this.#refuse();
    if (isFirst) this.#options.failed?.(error);
  }

  /**
   * Answers in place of the device. The device keeps the buffer until it answers, and the tag gets another one. The
   * tags of a queue that refuses share one, whose contents nobody will look at.
   */
  #abandon(request: QueueRequest): void {
    const buffer = this.#refusing ? this.#buffers.sink : this.#buffers.takeSpare();
    // Prevents a second answer when the watchdog finds it late.
    this.#watchdog?.release(request);
    this.#clock.read();
    const successor = new QueueRequest(this, request.tag);
    successor.buffer = buffer;
    this.#requests[request.tag] = successor;
    this.#commands.setAddress(request.tag, this.#buffers.address(buffer));
    request.abandoned = true;
    this.#abandoned += 1;
    this.#finish(request, errno.EIO);
  }
}
