/**
 * What a server has answered and may still lose: every write since its last flush, in the order of the answers.
 *
 * A dying server loses what it had not brought to stable storage: a killed nbdkit or qemu-nbd nothing that had reached
 * a file, a machine without power everything. The protocol does not tell a client which. Clients that only repeat
 * unanswered requests, as the kernel's and qemu's do, let the next flush succeed all the same, so that a file system
 * takes lost data for durable. Failing that flush instead would be honest, but would make every restart of a server an
 * error. So we keep the writes, and repeat them to the server that comes back before anything else: then everything
 * that a flush covers is there. It does not matter whether the server had them already.
 *
 * All writes are kept, even those with FUA, because repeating an earlier one of the same range would undo them; for the
 * same reason trims and zeroes. Overlapping ranges are never in flight together, so the order of the answers is that of
 * the data. Memory is bounded: when half of it is used, we ask the server to flush; when all of it is, writes wait for
 * that. For a server without flush nothing is kept: it must have what it has answered.
 */
import { Memory } from "../../libc/memory.ts";
import { NBD_CMD_WRITE } from "../../uapi/nbd.ts";
import type { ClientRequest } from "./request.ts";

const BYTES = 64 * 2 ** 20;
/** A write that wraps around at the end of the memory takes two. */
const ENTRIES = 32_768;

export class UnflushedWrites {
  readonly #bytesMax: number;
  readonly #memory: Memory;
  readonly #bytes: Uint8Array;
  /** For each entry: its type word, its range, and where its bytes are. */
  readonly #types = new Uint32Array(new ArrayBuffer(ENTRIES * 4));
  readonly #offsets = new Float64Array(new ArrayBuffer(ENTRIES * 8));
  readonly #lengths = new Float64Array(new ArrayBuffer(ENTRIES * 8));
  readonly #places = new Uint32Array(new ArrayBuffer(ENTRIES * 4));
  /** Entries are numbered from the start, without reuse. */
  #first = 0;
  #end = 0;
  /** Where the next bytes go, how many are kept, and how many are reserved for writes in flight. */
  #fill = 0;
  #used = 0;
  #reservedBytes = 0;
  #reservedEntries = 0;

  /** @param bytes of payload: at least twice as many as the longest write. */
  constructor(bytes = BYTES) {
    this.#bytesMax = bytes;
    this.#memory = new Memory(bytes);
    this.#bytes = this.#memory.bytes();
  }

  /** The number of the first entry. */
  get first(): number {
    return this.#first;
  }

  /** The number of the next entry. */
  get end(): number {
    return this.#end;
  }

  /** Whether it is time for a flush. */
  get isHalfFull(): boolean {
    return this.#used > this.#bytesMax / 2 || this.#end - this.#first > ENTRIES / 2;
  }

  /** Reserves room for a write that is about to be sent. Returns false if there is none. */
  reserve(request: ClientRequest): boolean {
    const bytes = payloadOf(request);
    if (this.#used + this.#reservedBytes + bytes > this.#bytesMax) return false;
    if (this.#end - this.#first + this.#reservedEntries + 2 > ENTRIES) return false;
    this.#reservedBytes += bytes;
    this.#reservedEntries += 2;
    request.isReserved = true;
    return true;
  }

  /** Gives back reserved room. */
  release(request: ClientRequest): void {
    if (!request.isReserved) return;
    request.isReserved = false;
    this.#reservedBytes -= payloadOf(request);
    this.#reservedEntries -= 2;
  }

  /** Keeps an answered write, for which room is reserved. */
  keep(request: ClientRequest): void {
    this.release(request);
    if (this.#used === 0) this.#fill = 0;
    const { buffer, offset, length } = request;
    if (request.command !== NBD_CMD_WRITE || buffer === undefined) return this.#add(request, offset, length);
    const head = Math.min(length, this.#bytesMax - this.#fill);
    this.#bytes.set(head === length ? buffer : buffer.subarray(0, head), this.#fill);
    this.#add(request, offset, head);
    if (head === length) return;
    this.#bytes.set(buffer.subarray(head));
    this.#add(request, offset + head, length - head);
  }

  /** Forgets the entries before this number. */
  forget(number: number): void {
    while (this.#first < number) {
      const index = this.#first % ENTRIES;
      if (commandOf(this.#types[index] ?? 0) === NBD_CMD_WRITE) this.#used -= this.#lengths[index] ?? 0;
      this.#first += 1;
    }
  }

  /** Loads entry `number` into `request`. Its bytes stay in place until the entry is forgotten. */
  load(number: number, request: ClientRequest): void {
    const index = number % ENTRIES;
    const type = this.#types[index] ?? 0;
    const place = this.#places[index] ?? 0;
    request.command = commandOf(type);
    request.flags = (type - request.command) >>> 0;
    request.offset = this.#offsets[index] ?? 0;
    request.length = this.#lengths[index] ?? 0;
    request.buffer =
      request.command === NBD_CMD_WRITE ? this.#bytes.subarray(place, place + request.length) : undefined;
  }

  close(): void {
    this.#memory.close();
  }

  #add(request: ClientRequest, offset: number, length: number): void {
    const index = this.#end % ENTRIES;
    this.#types[index] = request.flags | request.command;
    this.#offsets[index] = offset;
    this.#lengths[index] = length;
    this.#places[index] = this.#fill;
    this.#end += 1;
    if (request.command !== NBD_CMD_WRITE) return;
    this.#fill = (this.#fill + length) % this.#bytesMax;
    this.#used += length;
  }
}

function payloadOf({ command, length }: ClientRequest): number {
  return command === NBD_CMD_WRITE ? length : 0;
}

function commandOf(type: number): number {
  return type & 0xffff;
}
