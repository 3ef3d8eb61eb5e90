/**
 * A pair of io_uring rings, used with plain numbers: io_uring(7), io_uring_setup(2), io_uring_enter(2).
 *
 * The caller owns the submission entries and addresses them by number. It fills an entry once or repeatedly, and hands
 * it over by {@link Ring.push} and {@link Ring.enter}. An entry must not change between push and enter. Nothing here
 * allocates after the constructor.
 */
import { ptr, toArrayBuffer } from "bun:ffi";
import {
  IORING_ENTER_GETEVENTS,
  IORING_OFF_SQ_RING,
  IORING_OFF_SQES,
  IORING_REGISTER_EVENTFD,
  IORING_SETUP_CQSIZE,
  IORING_SETUP_SQE128,
  io_cqring_offsets,
  io_sqring_offsets,
  io_uring_cqe,
  io_uring_params,
  io_uring_sqe,
  SQE128_BYTES,
} from "../uapi/io_uring.ts";
import { errno } from "../uapi/errno.ts";
import { MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE } from "../uapi/mman.ts";
import { SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup } from "../uapi/unistd.ts";
import { pointer } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { close } from "./file.ts";
import { libc } from "./library.ts";

const WORD_BYTES = 4;
const CQE_WORDS = io_uring_cqe.size / WORD_BYTES;
const CQE_RES_WORD = io_uring_cqe.res / WORD_BYTES;

/** io_uring_setup(2). Returns a file descriptor, or -errno; `params` is filled by the kernel. */
function setup(entries: number, params: Uint8Array): number {
  return negativeErrno(libc.io_uring_setup(SYS_io_uring_setup, entries, params));
}

/** Whether a result of io_uring_enter(2) is temporary: a signal, too little memory, or completions to take first. */
export function isPassing(result: number): boolean {
  return result === -errno.EINTR || result === -errno.EAGAIN || result === -errno.EBUSY;
}

export class Ring {
  readonly fd: number;
  /** IORING_FEAT_ flags. */
  readonly features: number;
  /** The number of submission entries: a power of two, at least as many as requested. */
  readonly entries: number;
  /** All submission entries as 32-bit words, {@link entryWords} to each. */
  readonly words: Int32Array;
  readonly entryWords: number;

  readonly #ringAddress: number;
  readonly #ringBytes: number;
  readonly #entriesAddress: number;
  readonly #ring: Int32Array;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #sqArray: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  /** The tail after the last pushed entry, and how many pushed entries the kernel has not taken. */
  #tail = 0;
  #pushed = 0;
  #head = 0;

  /**
   * @param entries submission entries, at most 32,768.
   * @param flags IORING_SETUP_ flags. There are twice as many completions unless `completions` says otherwise.
   * @throws ErrnoError ENOSYS, EPERM (sysctl kernel.io_uring_disabled), EINVAL for a flag the kernel does not know.
   */
  constructor(entries: number, flags: number, completions?: number) {
    const params = new Uint8Array(new ArrayBuffer(io_uring_params.size));
    const view = new DataView(params.buffer);
    const sized = completions === undefined ? 0 : IORING_SETUP_CQSIZE;
    view.setUint32(io_uring_params.flags, flags | sized, true);
    view.setUint32(io_uring_params.cq_entries, completions ?? 0, true);
    this.fd = unwrap(setup(entries, params), "io_uring_setup");

    const field = (base: number, member: number): number => view.getUint32(base + member, true);
    const sq = (member: number): number => field(io_uring_params.sq_off, member);
    const cq = (member: number): number => field(io_uring_params.cq_off, member);
    this.features = field(0, io_uring_params.features);
    this.entries = field(0, io_uring_params.sq_entries);
    const cqEntries = field(0, io_uring_params.cq_entries);
    const entryBytes = (flags & IORING_SETUP_SQE128) === 0 ? io_uring_sqe.size : SQE128_BYTES;
    this.entryWords = entryBytes / WORD_BYTES;
    // One mapping holds both rings since Linux 5.4 (IORING_FEAT_SINGLE_MMAP); the flags that we need are newer.
    this.#ringBytes = Math.max(
      sq(io_sqring_offsets.array) + this.entries * WORD_BYTES,
      cq(io_cqring_offsets.cqes) + cqEntries * io_uring_cqe.size,
    );
    try {
      this.#ringAddress = this.#map(this.#ringBytes, IORING_OFF_SQ_RING);
      this.#entriesAddress = this.#map(this.entries * entryBytes, IORING_OFF_SQES);
    } catch (error) {
      close(this.fd);
      throw error;
    }
    this.#ring = new Int32Array(toArrayBuffer(pointer(this.#ringAddress), 0, this.#ringBytes));
    this.words = new Int32Array(toArrayBuffer(pointer(this.#entriesAddress), 0, this.entries * entryBytes));

    this.#sqTail = sq(io_sqring_offsets.tail) / WORD_BYTES;
    this.#sqMask = this.entries - 1;
    this.#sqArray = sq(io_sqring_offsets.array) / WORD_BYTES;
    this.#cqHead = cq(io_cqring_offsets.head) / WORD_BYTES;
    this.#cqTail = cq(io_cqring_offsets.tail) / WORD_BYTES;
    this.#cqMask = cqEntries - 1;
    this.#cqes = cq(io_cqring_offsets.cqes) / WORD_BYTES;
  }

  /** Hands over the entry with this number at the next {@link enter}. At most {@link entries} at a time. */
  push(entry: number): void {
    this.#ring[this.#sqArray + (this.#tail & this.#sqMask)] = entry;
    this.#tail = (this.#tail + 1) | 0;
    this.#pushed += 1;
  }

  /** Entries that wait for the next {@link enter}. */
  get pushed(): number {
    return this.#pushed;
  }

  /**
   * io_uring_enter(2): submits what was pushed, lets the kernel finish deferred work, and waits until at least
   * `waitFor` completions are ready. Returns the number of entries submitted, or -errno: -EINTR if a signal ended the
   * wait, -EBUSY if completions must be consumed first.
   */
  enter(waitFor: number): number {
    Atomics.store(this.#ring, this.#sqTail, this.#tail);
    const submitted = negativeErrno(
      libc.io_uring_enter(SYS_io_uring_enter, this.fd, this.#pushed, waitFor, IORING_ENTER_GETEVENTS, 0, 0),
    );
    if (submitted > 0) this.#pushed -= submitted;
    return submitted;
  }

  /** Makes pushed entries visible, so that another process that enters the ring submits them. */
  publish(): void {
    Atomics.store(this.#ring, this.#sqTail, this.#tail);
  }

  /** Takes back pushed entries that the kernel has not taken. Returns their numbers, in order. */
  withdraw(): number[] {
    const first = this.#tail - this.#pushed;
    const entries = Array.from(
      { length: this.#pushed },
      (_, index) => this.#ring[this.#sqArray + ((first + index) & this.#sqMask)] ?? 0,
    );
    this.#tail = first | 0;
    this.#pushed = 0;
    Atomics.store(this.#ring, this.#sqTail, this.#tail);
    return entries;
  }

  /** The number of completions that {@link userData} and {@link result} can read. */
  get ready(): number {
    return (Atomics.load(this.#ring, this.#cqTail) - this.#head) | 0;
  }

  /** The low half of the `user_data` of the `index`th completion that is ready. */
  userData(index: number): number {
    return this.#ring[this.#cqes + ((this.#head + index) & this.#cqMask) * CQE_WORDS] ?? 0;
  }

  /** The result of the `index`th completion that is ready: what the system call would return, or -errno. */
  result(index: number): number {
    return this.#ring[this.#cqes + ((this.#head + index) & this.#cqMask) * CQE_WORDS + CQE_RES_WORD] ?? 0;
  }

  /** Gives the first `count` completions back to the kernel. */
  consume(count: number): void {
    this.#head = (this.#head + count) | 0;
    Atomics.store(this.#ring, this.#cqHead, this.#head);
  }

  /** Makes every completion add 1 to an eventfd(2), to wait for a ring together with other things. */
  registerEventfd(eventfd: number): void {
    const fds = new Int32Array(new ArrayBuffer(WORD_BYTES));
    fds[0] = eventfd;
    const result = libc.io_uring_register(
      SYS_io_uring_register,
      this.fd,
      IORING_REGISTER_EVENTFD,
      ptr(fds),
      1,
    );
    unwrap(negativeErrno(result), "io_uring_register(IORING_REGISTER_EVENTFD)");
  }

  /** Releases everything and cancels what is in flight. Do not use any part of the ring afterwards. */
  close(): void {
    this.abandon();
    close(this.fd);
  }

  /** As {@link close}, but leaves the descriptor to the caller: closing that cancels what is in flight. */
  abandon(): void {
    libc.munmap(this.#ringAddress, this.#ringBytes);
    libc.munmap(this.#entriesAddress, this.entries * this.entryWords * WORD_BYTES);
  }

  #map(length: number, offset: number): number {
    const flags = MAP_SHARED | MAP_POPULATE;
    const address = negativeErrno(libc.mmap(0, length, PROT_READ | PROT_WRITE, flags, this.fd, offset));
    return unwrap(address, "mmap of a ring");
  }
}

/**
 * Sets up a ring in the first way that this kernel supports; every kernel must support the last one.
 * @param ways IORING_SETUP_ flags for each. @throws ErrnoError
 */
export function newestRing(entries: number, ways: readonly number[], completions?: number): Ring {
  const [best = 0, ...older] = ways;
  try {
    return new Ring(entries, best, completions);
  } catch (error) {
    if (older.length === 0) throw error;
    return newestRing(entries, older, completions);
  }
}
