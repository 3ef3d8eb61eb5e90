/**
 * An io_uring(7) for one open file: reads, writes and flushes that do not wait for each other, each a promise.
 * The requests of one turn of the event loop are submitted with one system call. An eventfd wakes the loop when some
 * are done.
 */
import { ptr } from "bun:ffi";
import { ErrnoError } from "../errors.ts";
import { errno } from "../uapi/errno.ts";
import {
  IORING_FEAT_RW_CUR_POS,
  IORING_FSYNC_DATASYNC,
  IORING_OP_FSYNC,
  IORING_OP_READ,
  IORING_OP_WRITE,
  IORING_SETUP_DEFER_TASKRUN,
  IORING_SETUP_SINGLE_ISSUER,
  io_uring_sqe,
} from "../uapi/io_uring.ts";
import { isPassing, newestRing, type Ring } from "./uring.ts";
import { Waker } from "./waker.ts";

export type FileOperation = typeof IORING_OP_READ | typeof IORING_OP_WRITE | typeof IORING_OP_FSYNC;

/** A request that is in flight, or waiting for an entry of the ring. */
interface Transfer {
  readonly operation: FileOperation;
  /** Protects the memory from garbage collection while the kernel has its address. */
  readonly buffer: Uint8Array | undefined;
  readonly address: number;
  readonly length: number;
  readonly offset: number;
  /** RWF_ or IORING_FSYNC_ flags. */
  readonly flags: number;
  done: number;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/** How many requests the kernel gets at once; the rest wait. */
const ENTRIES = 256;
/** From Linux 6.1 on the kernel works on completions when the ring is entered, and does not interrupt us for them. */
const SETUP_FLAGS = [IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0];
/** The delay before submitting leftovers again, in milliseconds. */
const RETRY_MS = 1;
const WORD = 2 ** 32;
const WORD_BYTES = 4;
const SQE = {
  opcode: io_uring_sqe.opcode / WORD_BYTES,
  fd: io_uring_sqe.fd / WORD_BYTES,
  off: io_uring_sqe.off / WORD_BYTES,
  addr: io_uring_sqe.addr / WORD_BYTES,
  len: io_uring_sqe.len / WORD_BYTES,
  rw_flags: io_uring_sqe.rw_flags / WORD_BYTES,
  user_data: io_uring_sqe.user_data / WORD_BYTES,
} as const;

export class FileRing {
  readonly #ring: Ring;
  readonly #waker: Waker;
  readonly #failure: (operation: FileOperation, result: number) => Error;
  /** The transfer of each entry in use, and the numbers of free entries. */
  readonly #transfers: (Transfer | undefined)[];
  readonly #free: number[];
  readonly #waiting: Transfer[] = [];
  readonly #submit: () => void;
  #submitDue = false;
  #inFlight = 0;
  #idle: (() => void) | undefined;

  /**
   * @param fd remains the caller's, and must stay open until {@link close} is done.
   * @param failure makes the reason of a rejection: `result` is a negative errno, or 0 at the end of the file.
   * @throws ErrnoError ENOSYS, EPERM and others if io_uring is unavailable.
   */
  constructor(fd: number, failure: (operation: FileOperation, result: number) => Error) {
    this.#failure = failure;
    this.#ring = makeRing();
    try {
      this.#waker = new Waker(() => this.#enter());
    } catch (error) {
      this.#ring.close();
      throw error;
    }
    this.#ring.registerEventfd(this.#waker.fd);
    const { words, entryWords } = this.#ring;
    words.fill(0);
    for (let entry = 0; entry < ENTRIES; entry += 1) {
      words[entry * entryWords + SQE.fd] = fd;
      words[entry * entryWords + SQE.user_data] = entry;
    }
    this.#transfers = Array.from({ length: ENTRIES }, () => undefined);
    this.#free = Array.from({ length: ENTRIES }, (_, index) => ENTRIES - 1 - index);
    this.#submit = () => {
      this.#submitDue = false;
      this.#enter();
    };
  }

  /** Fills `target`, or rejects. It is lent until the promise settles, as for {@link write}. */
  read(target: Uint8Array, offset: number): Promise<void> {
    return this.#begin(IORING_OP_READ, target, offset, 0);
  }

  /** Writes all of `source`, or rejects. `flags` are RWF_ flags. */
  write(source: Uint8Array, offset: number, flags: number): Promise<void> {
    return this.#begin(IORING_OP_WRITE, source, offset, flags);
  }

  /** fdatasync(2). */
  datasync(): Promise<void> {
    return this.#begin(IORING_OP_FSYNC, undefined, 0, IORING_FSYNC_DATASYNC);
  }

  /** Waits for requests in flight, then releases everything. */
  async close(): Promise<void> {
    if (this.#inFlight > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#idle = resolve;
      await promise;
    }
    this.#ring.close();
    await this.#waker.close();
  }

  #begin(
    operation: FileOperation,
    buffer: Uint8Array | undefined,
    offset: number,
    flags: number,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const transfer = {
      operation,
      buffer,
      address: buffer === undefined ? 0 : fixedAddress(buffer),
      length: buffer === undefined ? 0 : buffer.byteLength,
      offset,
      flags,
      done: 0,
      resolve,
      reject,
    };
    this.#inFlight += 1;
    const entry = this.#free.pop();
    if (entry === undefined) this.#waiting.push(transfer);
    else this.#push(entry, transfer);
    return promise;
  }

  /** Passes the rest of the transfer to the kernel with the next submission. */
  #push(entry: number, transfer: Transfer): void {
    this.#transfers[entry] = transfer;
    const { words, entryWords } = this.#ring;
    const at = entry * entryWords;
    const offset = transfer.offset + transfer.done;
    const address = transfer.address + transfer.done;
    words[at + SQE.opcode] = transfer.operation;
    words[at + SQE.off] = offset % WORD;
    words[at + SQE.off + 1] = offset / WORD;
    words[at + SQE.addr] = address % WORD;
    words[at + SQE.addr + 1] = address / WORD;
    words[at + SQE.len] = transfer.length - transfer.done;
    words[at + SQE.rw_flags] = transfer.flags;
    this.#ring.push(entry);
    if (this.#submitDue) return;
    this.#submitDue = true;
    queueMicrotask(this.#submit);
  }

  /** Submits what was pushed and settles what is done. It must not throw, because no caller could catch that. */
  #enter(): void {
    if (this.#inFlight === 0) return;
    const result = this.#ring.enter(0);
    this.#settle();
    if (result < 0 && !isPassing(result)) return this.#refuse(result);
    if (this.#submitDue || (result >= 0 && this.#ring.pushed === 0)) return;
    this.#submitDue = true;
    setTimeout(this.#submit, RETRY_MS);
  }

  /** Takes back entries that the kernel refuses. Those that it already has continue. */
  #refuse(result: number): void {
    for (const entry of this.#ring.withdraw()) {
      const transfer = this.#transfers[entry];
      this.#release(entry);
      transfer?.reject(this.#failure(transfer.operation, result));
    }
  }

  #settle(): void {
    const ring = this.#ring;
    const count = ring.ready;
    for (let index = 0; index < count; index += 1) this.#completed(ring.userData(index), ring.result(index));
    if (count > 0) ring.consume(count);
  }

  #completed(entry: number, result: number): void {
    const transfer = this.#transfers[entry];
    if (transfer === undefined) return;
    if (result > 0) transfer.done += result;
    const done = transfer.done === transfer.length && result >= 0;
    if (!done && (result > 0 || result === -errno.EINTR)) return this.#push(entry, transfer);
    this.#release(entry);
    if (done) transfer.resolve();
    else transfer.reject(this.#failure(transfer.operation, result));
  }

  #release(entry: number): void {
    this.#inFlight -= 1;
    const next = this.#waiting.shift();
    if (next !== undefined) return this.#push(entry, next);
    this.#transfers[entry] = undefined;
    this.#free.push(entry);
    if (this.#inFlight === 0) this.#idle?.();
  }
}

/** @throws ErrnoError */
function makeRing(): Ring {
  const ring = newestRing(ENTRIES, SETUP_FLAGS);
  if ((ring.features & IORING_FEAT_RW_CUR_POS) !== 0) return ring;
  ring.close();
  throw new ErrnoError("ENOSYS", "io_uring can read and write from Linux 5.6 on");
}

/** The final address of the bytes: the runtime moves a small array's bytes when its `buffer` is first read. */
function fixedAddress(bytes: Uint8Array): number {
  return ptr(bytes.buffer) + bytes.byteOffset;
}
