/**
 * The last requests that a queue has answered, in memory that its thread writes and the main thread reads. The writer
 * never waits: it overwrites the oldest, and each reader works out what it has missed. While nobody reads, a request
 * costs one comparison, and the system allocates no memory for the ring.
 *
 *     control | entries, 64 bytes each | bytes of writes, for readers that want them
 */
import { ptr } from "bun:ffi";
import { copy } from "../libc/memory.ts";

/** What a busy queue answers in a tenth of a second. A power of two, because the total wraps at 2^32. */
const ENTRIES = 16_384;
const DATA_BYTES = 8 * 2 ** 20;
const SWAP_ENTRIES = 1024;

/** In the control, in words of 32 bits: the readers, those of them that want data, the entries written so far. */
const READERS = 0;
const DATA_READERS = 1;
const WRITTEN = 2;
/** In words of 64 bits: the size in entries, and the zero of the writer's performance.now(), in ms since 1970. */
const SIZE = 2;
const ORIGIN = 3;
/** The total bytes of writes, including those that are just being copied into the ring. */
const DATA_END = 4;
const CONTROL_WORDS = 8;
const WORD_BYTES = Float64Array.BYTES_PER_ELEMENT;

/** Fields of an entry, in words of 64 bits. Times are milliseconds; `data` is where its bytes are, -1 for none. */
export const entry = {
  command: 0,
  flags: 1,
  offset: 2,
  length: 3,
  error: 4,
  arrived: 5,
  begun: 6,
  settled: 7,
  data: 8,
} as const;
/** In words; a power of two, so that entries do not share cache lines. */
export const ENTRY_WORDS = 16;

/** When a request arrived, when the device got it, and when the device was done: times of serving/clock.ts. */
export interface EntryTimes {
  readonly arrived: number;
  readonly begun: number;
  readonly settled: number;
}

/** The ring of a queue. @param isSwap its memory is resident from the start: it is small, without bytes of writes. */
export function makeQueueRing(isSwap: boolean): SharedArrayBuffer {
  return isSwap ? makeTraceRing(SWAP_ENTRIES, 0) : makeTraceRing();
}

/** The memory of an empty ring. @param entries a power of two. */
export function makeTraceRing(entries: number = ENTRIES, dataBytes: number = DATA_BYTES): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((CONTROL_WORDS + entries * ENTRY_WORDS) * WORD_BYTES + dataBytes);
  new Float64Array(memory)[SIZE] = entries;
  return memory;
}

/** The parts of a ring. */
class Places {
  readonly control: Int32Array;
  readonly words: Float64Array;
  readonly bytes: Uint8Array;
  readonly size: number;

  constructor(memory: SharedArrayBuffer) {
    this.control = new Int32Array(memory);
    this.words = new Float64Array(memory);
    this.size = this.words[SIZE] ?? 0;
    this.bytes = new Uint8Array(memory, (CONTROL_WORDS + this.size * ENTRY_WORDS) * WORD_BYTES);
  }

  /** The first word of an entry, by its number among all ever written. */
  at(number: number): number {
    return CONTROL_WORDS + (number & (this.size - 1)) * ENTRY_WORDS;
  }
}

/** The writer's side: for one thread at a time. */
export class TraceWriter {
  readonly #places: Places;
  /** The address of the bytes of writes in this process; 0 until there are some. */
  #dataAddress = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#places = new Places(memory);
    this.#places.words[ORIGIN] = performance.timeOrigin;
  }

  /** Whether there is a reader. */
  get isRead(): boolean {
    return this.#places.control[READERS] !== 0;
  }

  /** Whether a reader wants the bytes of writes. */
  get wantsData(): boolean {
    return this.#places.control[DATA_READERS] !== 0;
  }

  /**
   * Adds an answered request, in NBD's terms.
   * @param error an errno, 0 for success.
   * @param source address of the bytes of a write, valid until this returns; 0: do not keep them.
   */
  put(
    command: number,
    flags: number,
    offset: number,
    length: number,
    error: number,
    times: EntryTimes,
    source: number,
  ): void {
    const places = this.#places;
    const { control, words } = places;
    const data = source === 0 ? -1 : this.#putData(source, length);
    const written = control[WRITTEN] ?? 0;
    const at = places.at(written);
    words[at + entry.command] = command;
    words[at + entry.flags] = flags;
    words[at + entry.offset] = offset;
    words[at + entry.length] = length;
    words[at + entry.error] = error;
    words[at + entry.arrived] = times.arrived;
    words[at + entry.begun] = times.begun;
    words[at + entry.settled] = times.settled;
    words[at + entry.data] = data;
    Atomics.store(control, WRITTEN, (written + 1) | 0);
  }

  /** Returns the number of its first byte among all ever written; -1 if it is longer than the ring. */
  #putData(source: number, length: number): number {
    const { words, bytes } = this.#places;
    const size = bytes.byteLength;
    if (length > size) return -1;
    if (this.#dataAddress === 0) this.#dataAddress = ptr(bytes);
    const at = words[DATA_END] ?? 0;
    // Before any byte is overwritten, so that a reader that is copying notices.
    words[DATA_END] = at + length;
    const place = at % size;
    const first = Math.min(length, size - place);
    copy(this.#dataAddress + place, source, first);
    if (first < length) copy(this.#dataAddress, source + first, length - first);
    return at;
  }
}

/** What a reader has taken from a ring. */
export interface TraceBatch {
  /** Consecutive entries of {@link ENTRY_WORDS} each; their field `data` is an offset in `data` below, or -1. */
  readonly entries: Float64Array<ArrayBuffer>;
  readonly data: Uint8Array<ArrayBuffer>;
  /** Requests that were overwritten before they were read. */
  readonly lost: number;
  /** Whether there are more. */
  readonly isMore: boolean;
  /** The zero of the times in the entries, in milliseconds since 1970. */
  readonly origin: number;
}

/** A reader's side: it sees every request answered from now on, until it is closed. */
export class TraceReader {
  readonly #places: Places;
  readonly #wantsData: boolean;
  #read: number;
  #isOpen = true;

  constructor(memory: SharedArrayBuffer, wantsData: boolean) {
    this.#places = new Places(memory);
    this.#wantsData = wantsData;
    const { control } = this.#places;
    this.#read = Atomics.load(control, WRITTEN);
    if (wantsData) Atomics.add(control, DATA_READERS, 1);
    Atomics.add(control, READERS, 1);
  }

  /** Ends the reading. It may be called several times. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    Atomics.sub(this.#places.control, READERS, 1);
    if (this.#wantsData) Atomics.sub(this.#places.control, DATA_READERS, 1);
  }

  /**
   * Takes the oldest entries, up to `entriesMax`, with up to `dataMax` bytes of data.
   * @param takesFirst takes the first entry even if it has more data than that.
   */
  take(entriesMax: number, dataMax: number, takesFirst = true): TraceBatch {
    const places = this.#places;
    const { size } = places;
    const first = this.#read;
    const there = (Atomics.load(places.control, WRITTEN) - first) >>> 0;
    // The writer may be overwriting the oldest entry.
    const missed = Math.max(0, there - (size - 1));
    const count = Math.min(there - missed, entriesMax);
    const entries = new Float64Array(count * ENTRY_WORDS);
    for (let index = 0; index < count; index += 1) {
      const at = places.at(first + missed + index);
      entries.set(places.words.subarray(at, at + ENTRY_WORDS), index * ENTRY_WORDS);
    }
    // Entries that were overwritten during the copy.
    const overtaken = ((Atomics.load(places.control, WRITTEN) - first) >>> 0) - (size - 1) - missed;
    const torn = Math.min(count, Math.max(0, overtaken));
    const data = this.#takeData(entries, torn, dataMax, takesFirst);
    this.#read = (first + missed + torn + data.taken) | 0;
    return {
      entries: entries.slice(torn * ENTRY_WORDS, (torn + data.taken) * ENTRY_WORDS),
      data: data.bytes,
      lost: missed + torn,
      isMore: this.#read !== Atomics.load(places.control, WRITTEN),
      origin: places.words[ORIGIN] ?? 0,
    };
  }

  /** The bytes of the entries from `first` on, and the number of these entries. */
  #takeData(
    entries: Float64Array,
    first: number,
    dataMax: number,
    takesFirst: boolean,
  ): { bytes: Uint8Array<ArrayBuffer>; taken: number } {
    const count = entries.length / ENTRY_WORDS;
    const parts: Uint8Array[] = [];
    let length = 0;
    let index = first;
    for (; index < count; index += 1) {
      const at = index * ENTRY_WORDS;
      const from = entries[at + entry.data] ?? -1;
      if (from < 0) continue;
      const bytes = this.#wantsData ? (entries[at + entry.length] ?? 0) : 0;
      if ((index > first || !takesFirst) && length + bytes > dataMax) break;
      const part = this.#wantsData ? this.#copyData(from, bytes) : undefined;
      entries[at + entry.data] = part === undefined ? -1 : length;
      if (part === undefined) continue;
      parts.push(part);
      length += bytes;
    }
    return { bytes: new Uint8Array(Buffer.concat(parts)), taken: index - first };
  }

  /** Undefined if they have been overwritten. */
  #copyData(from: number, length: number): Uint8Array | undefined {
    const { bytes, words } = this.#places;
    const size = bytes.byteLength;
    const target = new Uint8Array(length);
    const place = from % size;
    const first = Math.min(length, size - place);
    target.set(bytes.subarray(place, place + first));
    target.set(bytes.subarray(0, length - first), first);
    return (words[DATA_END] ?? 0) - from > size ? undefined : target;
  }
}
