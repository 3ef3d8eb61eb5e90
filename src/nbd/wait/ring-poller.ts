/** Polls on an io_uring (io_uring_enter(2), IORING_OP_POLL_ADD), whose completions count up an eventfd. */
import { ErrnoError } from "../../errors.ts";
import { isPassing, newestRing, type Ring } from "../../libc/uring.ts";
import { Waker } from "../../libc/waker.ts";
import {
  IORING_OP_POLL_ADD,
  IORING_OP_POLL_REMOVE,
  IORING_SETUP_COOP_TASKRUN,
  io_uring_sqe,
} from "../../uapi/io_uring.ts";
import type { Poller } from "./poller.ts";

/** Submission entries at a time. */
const ENTRIES = 64;
/**
 * A completion arrives with the next system call of any kind, so that the ring need not be entered for it. This ring
 * cannot use IORING_SETUP_DEFER_TASKRUN: with it, Linux 6.12 does not signal the eventfd for a second poll.
 */
const SETUP_FLAGS = [IORING_SETUP_COOP_TASKRUN, 0];
/** Each member is watched at most twice. */
const COMPLETIONS = 4096;
/** The user data of a removal: no key. */
const NOBODY = -1;
const WORD_BYTES = 4;
const SQE = {
  opcode: io_uring_sqe.opcode / WORD_BYTES,
  fd: io_uring_sqe.fd / WORD_BYTES,
  addr: io_uring_sqe.addr / WORD_BYTES,
  poll32_events: io_uring_sqe.poll32_events / WORD_BYTES,
  user_data: io_uring_sqe.user_data / WORD_BYTES,
} as const;

export class RingPoller implements Poller {
  readonly #ring: Ring;
  readonly #waker: Waker;
  /** The next entry to fill. */
  #entry = 0;

  /** @throws ErrnoError if io_uring is unavailable. */
  constructor(onNews: () => void) {
    this.#ring = newestRing(ENTRIES, SETUP_FLAGS, COMPLETIONS);
    try {
      this.#waker = new Waker(onNews);
    } catch (error) {
      this.#ring.close();
      throw error;
    }
    try {
      this.#ring.registerEventfd(this.#waker.fd);
    } catch (error) {
      void this.close();
      throw error;
    }
  }

  watch(key: number, fd: number, events: number): void {
    const at = this.#fill(IORING_OP_POLL_ADD, key);
    this.#ring.words[at + SQE.fd] = fd;
    this.#ring.words[at + SQE.poll32_events] = events;
  }

  forget(key: number): void {
    const at = this.#fill(IORING_OP_POLL_REMOVE, NOBODY);
    this.#ring.words[at + SQE.fd] = -1;
    this.#ring.words[at + SQE.addr] = key;
    // A poll holds the socket: until this is done, closing it would not close the connection.
    this.submit();
  }

  submit(): boolean {
    if (this.#ring.pushed === 0) return true;
    const entered = this.#ring.enter(0);
    if (entered < 0 && !isPassing(entered)) throw new ErrnoError(-entered, "io_uring_enter failed");
    return this.#ring.pushed === 0;
  }

  take(): number {
    const ring = this.#ring;
    while (ring.ready > 0) {
      const key = ring.userData(0);
      ring.consume(1);
      if (key >= 0) return key;
    }
    return -1;
  }

  async close(): Promise<void> {
    this.#ring.close();
    await this.#waker.close();
  }

  /** Fills the common fields of an entry and pushes it. Returns its index in the words. */
  #fill(opcode: number, userData: number): number {
    const ring = this.#ring;
    while (ring.pushed === ENTRIES) this.submit();
    const entry = this.#entry;
    this.#entry = (entry + 1) % ENTRIES;
    const at = entry * ring.entryWords;
    // The kernel refuses a poll with the leftovers of a removal.
    ring.words.fill(0, at, at + ring.entryWords);
    ring.words[at + SQE.opcode] = opcode;
    ring.words[at + SQE.user_data] = userData;
    ring.push(entry);
    return at;
  }
}
