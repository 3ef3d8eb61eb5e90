/**
 * The commands of a queue's tags: one submission entry for each, filled once; later only the fields that differ change.
 * The next Ring.enter submits the commands that were pushed.
 */
import type { Ring } from "../../libc/uring.ts";
import { IORING_OP_POLL_ADD, IORING_OP_URING_CMD, io_uring_sqe } from "../../uapi/io_uring.ts";
import { POLLIN } from "../../uapi/poll.ts";
import {
  UBLK_U_IO_COMMIT_AND_FETCH_REQ,
  UBLK_U_IO_FETCH_REQ,
  UBLK_U_IO_NEED_GET_DATA,
  ublksrv_io_cmd,
} from "../../uapi/ublk_cmd.ts";

const WORD = 2 ** 32;
const WORD_BYTES = 4;

/** Words of a submission entry. */
const ENTRY_WORDS = io_uring_sqe.size / WORD_BYTES;
const FILE = io_uring_sqe.fd / WORD_BYTES;
const CMD_OP = io_uring_sqe.cmd_op / WORD_BYTES;
const RESULT = (io_uring_sqe.cmd + ublksrv_io_cmd.result) / WORD_BYTES;
const ADDRESS = (io_uring_sqe.cmd + ublksrv_io_cmd.addr) / WORD_BYTES;

export class TagCommands {
  readonly #ring: Ring;

  readonly #depth: number;

  /** Fills the entries to fetch the first requests. @param queue its number. */
  constructor(ring: Ring, queue: number, depth: number) {
    this.#ring = ring;
    this.#depth = depth;
    const entry = new DataView(ring.words.buffer);
    for (let tag = 0; tag < depth; tag += 1) {
      const at = tag * io_uring_sqe.size;
      entry.setUint8(at + io_uring_sqe.opcode, IORING_OP_URING_CMD);
      entry.setUint32(at + io_uring_sqe.cmd_op, UBLK_U_IO_FETCH_REQ, true);
      entry.setUint32(at + io_uring_sqe.user_data, tag, true);
      entry.setUint16(at + io_uring_sqe.cmd + ublksrv_io_cmd.q_id, queue, true);
      entry.setUint16(at + io_uring_sqe.cmd + ublksrv_io_cmd.tag, tag, true);
    }
  }

  /** @param fd /dev/ublkcN. */
  setFile(fd: number): void {
    for (let tag = 0; tag < this.#depth; tag += 1) this.#ring.words[tag * ENTRY_WORDS + FILE] = fd;
  }

  /** Waits for the tag's first request. Its file and address must have been set. */
  fetch(tag: number): void {
    this.#ring.push(tag);
  }

  /** Completes with `userData` once a file descriptor is readable. */
  watch(entry: number, fd: number, userData: number): void {
    const view = new DataView(this.#ring.words.buffer, entry * io_uring_sqe.size, io_uring_sqe.size);
    view.setUint8(io_uring_sqe.opcode, IORING_OP_POLL_ADD);
    view.setInt32(io_uring_sqe.fd, fd, true);
    view.setUint32(io_uring_sqe.poll32_events, POLLIN, true);
    view.setInt32(io_uring_sqe.user_data, userData, true);
    this.#ring.push(entry);
  }

  /** Answers the tag's request, bytes moved or -errno, and waits for the next one. */
  commit(tag: number, result: number): void {
    const { words } = this.#ring;
    words[tag * ENTRY_WORDS + RESULT] = result;
    words[tag * ENTRY_WORDS + CMD_OP] = UBLK_U_IO_COMMIT_AND_FETCH_REQ | 0;
    this.#ring.push(tag);
  }

  /** Makes the driver copy the data of the tag's write to its address. */
  getData(tag: number): void {
    this.#ring.words[tag * ENTRY_WORDS + CMD_OP] = UBLK_U_IO_NEED_GET_DATA | 0;
    this.#ring.push(tag);
  }

  /** Sets the address for the driver to copy from or to, in this and later commands. */
  setAddress(tag: number, address: number): void {
    const at = tag * ENTRY_WORDS + ADDRESS;
    const high = Math.floor(address / WORD);
    this.#ring.words[at] = address - high * WORD;
    this.#ring.words[at + 1] = high;
  }
}
