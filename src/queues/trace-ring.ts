/**
 * The last requests that a queue has answered, in memory that its thread writes and the main thread reads. The writer
 * waits for nobody: it writes over the oldest, and each reader finds by itself what it has missed. While nobody reads,
 * a request costs a comparison; the memory is that of the system until then.
 *
 *     control | entries, 64 bytes each | bytes of writes, for readers that want them
 */
import { ptr } from "bun:ffi";
import { copy } from "../libc/memory.ts";

/** What a busy queue answers in a tenth of a second. A power of two, since the count of all wraps at 2^32. */
const ENTRIES = 16_384;
const DATA_BYTES = 8 * 2 ** 20;
const SWAP_ENTRIES = 1024;

/** Of the control, in words of 32 bits: how many read, how many of these want data, the entries written so far. */
const READERS = 0;
const DATA_READERS = 1;
const WRITTEN = 2;
/** In words of 64 bits: the entries, and when the writer's performance.now() began, in milliseconds since 1970. */
const SIZE = 2;
const ORIGIN = 3;
/** Bytes of writes up to the last that are on their way into the ring. */
const DATA_END = 4;
const CONTROL_WORDS = 8;
const WORD_BYTES = Float64Array.BYTES_PER_ELEMENT;

/** Places in an entry, in words of 64 bits. Times are milliseconds; `data` is where its bytes are, -1: nowhere. */
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
/** In words; a power of two keeps one to its cache lines. */
export const ENTRY_WORDS = 16;

/** When a request came, when the device got it, and when that was done: as serving/clock.ts has them. */
export interface EntryTimes {
  readonly arrived: number;
  readonly begun: number;
  readonly settled: number;
}

/** The ring of a queue. @param isSwap its memory is there from the start, and little: it has no bytes of writes. */
export function makeQueueRing(isSwap: boolean): SharedArrayBuffer {
  return isSwap ? makeTraceRing(SWAP_ENTRIES, 0) : makeTraceRing();
}

/** The memory of a ring that nobody has written to: `entries` a power of two. */
export function makeTraceRing(entries: number = ENTRIES, dataBytes: number = DATA_BYTES): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((CONTROL_WORDS + entries * ENTRY_WORDS) * WORD_BYTES + dataBytes);
  new Float64Array(memory)[SIZE] = entries;
  return memory;
}

/** Where the parts of a ring are. */
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

  /** The first word of an entry by its number among all. */
  at(number: number): number {
    return CONTROL_WORDS + (number & (this.size - 1)) * ENTRY_WORDS;
  }
}

/** The writer's side: of one thread at a time. */
export class TraceWriter {
  readonly #places: Places;
  /** Where the bytes of writes lie in this process; 0 until there are some. */
  #dataAddress = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#places = new Places(memory);
    this.#places.words[ORIGIN] = performance.timeOrigin;
  }

  /** Whether somebody reads. */
  get isRead(): boolean {
    return this.#places.control[READERS] !== 0;
  }

  /** Whether somebody wants the bytes of writes. */
  get wantsData(): boolean {
    return this.#places.control[DATA_READERS] !== 0;
  }

  /**
   * A request that has been answered, in the words of NBD.
   * @param error an errno, 0 for success.
   * @param source where the bytes of a write lie until this returns; 0: they are not to be kept.
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

  /** Returns the number of its first byte among all; -1 for what is longer than the ring. */
  #putData(source: number, length: number): number {
    const { words, bytes } = this.#places;
    const size = bytes.byteLength;
    if (length > size) return -1;
    if (this.#dataAddress === 0) this.#dataAddress = ptr(bytes);
    const at = words[DATA_END] ?? 0;
    // Before the first byte is overwritten, for a reader that is about to copy it.
    words[DATA_END] = at + length;
    const place = at % size;
    const first = Math.min(length, size - place);
    copy(this.#dataAddress + place, source, first);
    if (first < length) copy(this.#dataAddress, source + first, length - first);
    return at;
  }
}

/** What a reader has taken out of a ring. */
export interface TraceBatch {
  /** Entries one behind the other, {@link ENTRY_WORDS} each: the place of `data` is one in `data`, or -1. */
  readonly entries: Float64Array<ArrayBuffer>;
  readonly data: Uint8Array<ArrayBuffer>;
  /** Requests that were overwritten before they were read. */
  readonly lost: number;
  /** There are more. */
  readonly isMore: boolean;
  /** When the times of the entries began: milliseconds since 1970. */
  readonly origin: number;
}

/** A reader's side: it sees what is answered from now on, until it is closed. */
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

  /** Whoever has vanished reads no more. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    Atomics.sub(this.#places.control, READERS, 1);
    if (this.#wantsData) Atomics.sub(this.#places.control, DATA_READERS, 1);
  }

  /**
   * The oldest that there are: at most so many, with so many bytes of data.
   * @param takesFirst also where that has more data.
   */
  take(entriesMax: number, dataMax: number, takesFirst = true): TraceBatch {
    const places = this.#places;
    const { size } = places;
    const first = this.#read;
    const there = (Atomics.load(places.control, WRITTEN) - first) >>> 0;
    // The one that is being written may be in the place of the oldest.
    const missed = Math.max(0, there - (size - 1));
    const count = Math.min(there - missed, entriesMax);
    const entries = new Float64Array(count * ENTRY_WORDS);
    for (let index = 0; index < count; index += 1) {
      const at = places.at(first + missed + index);
      entries.set(places.words.subarray(at, at + ENTRY_WORDS), index * ENTRY_WORDS);
    }
    // What was overwritten while it was copied.
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

  /** The bytes of entries from `first` on, and of how many entries they are. */
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

  /** Undefined when they are overwritten. */
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
