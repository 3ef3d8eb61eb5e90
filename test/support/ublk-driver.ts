/**
 * A stand-in for the ublk driver, as a queue sees it. It takes the commands that the queue pushes to its ring, as the
 * kernel would, and completes them with requests. The ring is a stand-in too, and the queue maps the descriptors from a
 * file. Nothing here allocates while the same requests are repeated.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { Memory } from "../../src/libc/memory.ts";
import { errno } from "../../src/uapi/errno.ts";
import { IORING_OP_URING_CMD, io_uring_sqe } from "../../src/uapi/io_uring.ts";
import {
  UBLK_IO_OP_WRITE,
  UBLK_IO_RES_NEED_GET_DATA,
  UBLK_MAX_QUEUE_DEPTH,
  UBLK_U_IO_COMMIT_AND_FETCH_REQ,
  UBLK_U_IO_FETCH_REQ,
  UBLK_U_IO_NEED_GET_DATA,
  ublksrv_io_cmd,
  ublksrv_io_desc,
} from "../../src/uapi/ublk_cmd.ts";
import { standInForFile } from "./stand-in.ts";
import { TemporaryDirectory } from "./temporary.ts";

const SECTOR_BYTES = 512;
const WORD_BYTES = 4;
const WORD = 2 ** 32;
const ENTRY_WORDS = io_uring_sqe.size / WORD_BYTES;
/** The indices of words in an entry. */
const FD = io_uring_sqe.fd / WORD_BYTES;
const CMD_OP = io_uring_sqe.cmd_op / WORD_BYTES;
const COMMAND = io_uring_sqe.cmd / WORD_BYTES;
const RESULT = (io_uring_sqe.cmd + ublksrv_io_cmd.result) / WORD_BYTES;
const ADDRESS = (io_uring_sqe.cmd + ublksrv_io_cmd.addr) / WORD_BYTES;

/** A request of the block layer. */
export interface Asked {
  /** UBLK_IO_OP_*. */
  readonly operation: number;
  /** UBLK_IO_F_*. */
  readonly flags?: number;
  /** Bytes, in whole sectors. */
  readonly offset?: number;
  readonly length?: number;
  /** The data of a write. */
  readonly data?: Uint8Array;
}

/** Drivers by the file descriptor that stands for /dev/ublkcN. */
const drivers = new Map<number, UblkDriver>();
/** The same in an array: iterating over a map makes an object. */
const all: UblkDriver[] = [];

/** Replaces the Ring of libc/uring.ts, with the parts that a queue uses. */
export class FakeRing {
  readonly entryWords = ENTRY_WORDS;
  readonly words: Int32Array;
  pushed = 0;
  closed = false;
  eventfd = -1;
  /** How often {@link enter} was told to wait. It never does. */
  waits = 0;
  /** The error of the next {@link enter}, a negative errno. */
  fault = 0;
  readonly #pushes: Int32Array;
  readonly #userData: Int32Array;
  readonly #results: Int32Array;
  /** Completions from the first unconsumed one to before the next new one; both counters only grow. */
  #head = 0;
  #tail = 0;

  constructor(readonly entries: number) {
    this.words = new Int32Array(entries * ENTRY_WORDS);
    this.#pushes = new Int32Array(entries);
    this.#userData = new Int32Array(entries);
    this.#results = new Int32Array(entries);
  }

  push(entry: number): void {
    if (this.pushed === this.entries) throw new Error("more entries were pushed than there are");
    this.#pushes[this.pushed] = entry;
    this.pushed += 1;
  }

  enter(waitFor: number): number {
    const { fault, pushed } = this;
    if (waitFor > 0) this.waits += 1;
    this.fault = 0;
    if (fault < 0) return fault;
    for (let index = 0; index < pushed; index += 1) {
      const entry = this.#pushes[index] ?? 0;
      const driver = drivers.get(this.words[entry * ENTRY_WORDS + FD] ?? -1);
      if (driver === undefined) throw new Error("a command names no driver");
      driver.take(this, entry);
    }
    this.pushed = 0;
    for (const driver of all) if (driver.ring === this) driver.entered();
    return pushed;
  }

  get ready(): number {
    return this.#tail - this.#head;
  }

  userData(index: number): number {
    return this.#userData[(this.#head + index) % this.entries] ?? 0;
  }

  result(index: number): number {
    return this.#results[(this.#head + index) % this.entries] ?? 0;
  }

  consume(count: number): void {
    if (count > this.ready) throw new Error(`${count} of ${this.ready} completions were consumed`);
    this.#head += count;
  }

  /** Adds a completion for the next turn. */
  complete(userData: number, result: number): void {
    if (this.ready === this.entries) throw new Error("more commands are complete than there are");
    this.#userData[this.#tail % this.entries] = userData;
    this.#results[this.#tail % this.entries] = result;
    this.#tail += 1;
  }

  /** The test signals the eventfd, unless it turns the queue itself. */
  registerEventfd(eventfd: number): void {
    this.eventfd = eventfd;
  }

  close(): void {
    this.closed = true;
  }

  abandon(): void {
    this.closed = true;
  }
}

/** Gives queues stand-ins for rings until the tests of the file are over. Other files use real rings. */
export function useFakeRings(): Promise<void> {
  return standInForFile({ "libc/uring.ts": { Ring: FakeRing } });
}

export class UblkDriver {
  /** Stands for /dev/ublkcN. */
  readonly fd: number;
  /** The result of the last answer, by tag. */
  readonly results: Int32Array;
  /** The address of the buffer in the last command, by tag. */
  readonly addresses: Float64Array;
  answers = 0;
  readonly #directory = new TemporaryDirectory();
  readonly #descriptors: number;
  readonly #descriptor = new DataView(new ArrayBuffer(ublksrv_io_desc.size));
  /** 1 for a tag whose command waits here. */
  readonly #waiting: Uint8Array;
  readonly #userData: Int32Array;
  /** The data of a write for which the queue has not provided a buffer yet, by tag. */
  readonly #dataDue: (Uint8Array | undefined)[] = [];
  #ring: FakeRing | undefined;

  /**
   * @param index of the queue.
   * @param needGetData whether the device has UBLK_F_NEED_GET_DATA.
   */
  constructor(
    readonly depth: number,
    readonly index = 0,
    readonly needGetData = false,
  ) {
    this.#descriptors = index * UBLK_MAX_QUEUE_DEPTH * ublksrv_io_desc.size;
    this.fd = openSync(this.#directory.join("ublkc"), "w+");
    ftruncateSync(this.fd, this.#descriptors + UBLK_MAX_QUEUE_DEPTH * ublksrv_io_desc.size);
    this.results = new Int32Array(depth);
    this.addresses = new Float64Array(depth);
    this.#waiting = new Uint8Array(depth);
    this.#userData = new Int32Array(depth);
    drivers.set(this.fd, this);
    all.push(this);
  }

  /** The queue's ring. */
  get ring(): FakeRing {
    if (this.#ring === undefined) throw new Error("no queue has handed its tags over");
    return this.#ring;
  }

  /** Takes a command: the first of a tag, or an answer. @throws Error where the kernel would refuse it. */
  take(ring: FakeRing, entry: number): void {
    this.#ring = ring;
    const at = entry * ENTRY_WORDS;
    const { words } = ring;
    const opcode = (words[at] ?? 0) & 0xff;
    const queueAndTag = words[at + COMMAND] ?? 0;
    const tag = queueAndTag >>> 16;
    if (opcode !== IORING_OP_URING_CMD) throw new Error(`opcode ${opcode} is no command`);
    if ((queueAndTag & 0xffff) !== this.index) throw new Error(`queue ${queueAndTag & 0xffff} was named`);
    if (tag >= this.depth || this.#waiting[tag] === 1) throw new Error(`tag ${tag} was named`);
    const isFirst = this.addresses[tag] === 0;
    const operation = (words[at + CMD_OP] ?? 0) >>> 0;
    const dataDue = this.#dataDue[tag];
    if (operation !== this.#expected(isFirst, dataDue))
      throw new Error(`command ${operation.toString(16)} for tag ${tag}`);
    if (!isFirst && dataDue === undefined) {
      this.results[tag] = words[at + RESULT] ?? 0;
      this.answers += 1;
    }
    this.addresses[tag] = ((words[at + ADDRESS] ?? 0) >>> 0) + (words[at + ADDRESS + 1] ?? 0) * WORD;
    this.#userData[tag] = words[at + io_uring_sqe.user_data / WORD_BYTES] ?? 0;
    this.#waiting[tag] = 1;
    if (dataDue !== undefined) {
      this.buffer(tag, dataDue.length).set(dataDue);
      this.#dataDue[tag] = undefined;
      this.#complete(tag, 0);
    }
  }

  /** Called whenever its ring was entered, so that a test can make it request something then. */
  entered(): void {
    // Does nothing unless a test replaces it.
  }

  #expected(isFirst: boolean, dataDue: Uint8Array | undefined): number {
    if (isFirst) return UBLK_U_IO_FETCH_REQ;
    return dataDue === undefined ? UBLK_U_IO_COMMIT_AND_FETCH_REQ : UBLK_U_IO_NEED_GET_DATA;
  }

  /** Lets the tag's command complete with a request, in the queue's next turn. */
  ask(tag: number, { operation, flags = 0, offset = 0, data, length = data?.length ?? 0 }: Asked): void {
    const view = this.#descriptor;
    view.setUint32(ublksrv_io_desc.op_flags, operation | flags, true);
    view.setUint32(ublksrv_io_desc.nr_sectors, length / SECTOR_BYTES, true);
    view.setBigUint64(ublksrv_io_desc.start_sector, BigInt(offset / SECTOR_BYTES), true);
    writeSync(this.fd, view, 0, view.byteLength, this.#descriptors + tag * view.byteLength);
    if (this.needGetData && operation === UBLK_IO_OP_WRITE) {
      this.#dataDue[tag] = data ?? new Uint8Array(length);
      this.#complete(tag, UBLK_IO_RES_NEED_GET_DATA);
      return;
    }
    if (data !== undefined) this.buffer(tag, length).set(data);
    this.askAgain(tag);
  }

  /** As {@link ask}, with the previous request of the tag. */
  askAgain(tag: number): void {
    this.#complete(tag, 0);
  }

  #complete(tag: number, result: number): void {
    if (this.#waiting[tag] !== 1) throw new Error(`tag ${tag} has no command waiting`);
    this.#waiting[tag] = 0;
    this.ring.complete(this.#userData[tag] ?? 0, result);
  }

  /** Takes back all tags with waiting commands, as when the device is stopped. */
  stop(): void {
    for (let tag = 0; tag < this.depth; tag += 1) {
      if (this.#waiting[tag] !== 1) continue;
      this.#waiting[tag] = 0;
      this.ring.complete(this.#userData[tag] ?? 0, -errno.ENODEV);
    }
  }

  /** Whether the tag's last request has been answered. */
  isAnswered(tag: number): boolean {
    return this.#waiting[tag] === 1;
  }

  /** The buffer in the tag's last command, which still belongs to the queue. */
  buffer(tag: number, length: number): Uint8Array {
    return new Memory(length, this.addresses[tag]).bytes();
  }

  [Symbol.dispose](): void {
    drivers.delete(this.fd);
    all.splice(all.indexOf(this), 1);
    closeSync(this.fd);
    this.#directory[Symbol.dispose]();
  }
}
