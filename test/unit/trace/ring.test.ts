/** Goal: a ring tells each reader how much it missed, and never anything wrong; its writer waits for no reader. */
import { ptr } from "bun:ffi";
import { expect, spyOn, test } from "bun:test";
import {
  entry,
  ENTRY_WORDS,
  makeTraceRing,
  type TraceBatch,
  TraceReader,
  TraceWriter,
} from "../../../src/queues/trace-ring.ts";
import { NBD_CMD_WRITE } from "../../../src/uapi/nbd.ts";

const ENTRIES = 8;
const DATA = 32;
const ALL = 1000;

function put(writer: TraceWriter, number: number, payload?: Uint8Array): void {
  const times = { arrived: number, begun: number + 1, settled: number + 2 };
  const source = payload === undefined ? 0 : ptr(payload);
  writer.put(NBD_CMD_WRITE, 0, number * 512, payload?.length ?? 512, number % 3, times, source);
}

/** The numbers of the entries, each of which is whole. */
function numbers({ entries }: TraceBatch): number[] {
  const found: number[] = [];
  for (let at = 0; at < entries.length; at += ENTRY_WORDS) {
    const number = (entries[at + entry.offset] ?? 0) / 512;
    const rest = [entry.error, entry.arrived, entry.begun, entry.settled].map((place) => entries[at + place]);
    expect(rest).toEqual([number % 3, number, number + 1, number + 2]);
    found.push(number);
  }
  return found;
}

/** `[first, end)`. */
function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

test("nobody reads, one reads, two do", () => {
  const memory = makeTraceRing(ENTRIES, DATA);
  const writer = new TraceWriter(memory);
  expect([writer.isRead, writer.wantsData]).toEqual([false, false]);
  put(writer, 0);
  const first = new TraceReader(memory, false);
  put(writer, 1);
  const second = new TraceReader(memory, true);
  expect([writer.isRead, writer.wantsData]).toEqual([true, true]);
  put(writer, 2);
  expect(numbers(first.take(ALL, ALL))).toEqual([1, 2]);
  expect(numbers(second.take(ALL, ALL))).toEqual([2]);
  for (const _ of [1, 2]) second.close();
  expect([writer.isRead, writer.wantsData]).toEqual([true, false]);
  first.close();
  expect(writer.isRead).toBe(false);
});

// A reader skips the oldest of eight entries, because it may be being overwritten.
test.each([
  { written: 3, max: ALL, expected: range(0, 3), lost: 0, isMore: false },
  { written: 7, max: ALL, expected: range(0, 7), lost: 0, isMore: false },
  { written: 8, max: ALL, expected: range(1, 8), lost: 1, isMore: false },
  { written: 20, max: ALL, expected: range(13, 20), lost: 13, isMore: false },
  { written: 7, max: 3, expected: range(0, 3), lost: 0, isMore: true },
  { written: 20, max: 3, expected: range(13, 16), lost: 13, isMore: true },
])("of $written requests, $max at once: $lost are lost", ({ written, max, expected, lost, isMore }) => {
  // Wherever the ring stands, and where the count of all wraps.
  for (const before of [0, 5, 2 ** 31 - 4, 2 ** 32 - 4]) {
    const memory = makeTraceRing(ENTRIES, DATA);
    new Int32Array(memory)[2] = before | 0;
    const writer = new TraceWriter(memory);
    const reader = new TraceReader(memory, false);
    for (const number of range(0, written)) put(writer, number);
    const batch = reader.take(max, ALL);
    expect(numbers(batch)).toEqual(expected);
    expect(batch).toMatchObject({ lost, isMore, origin: performance.timeOrigin });
    put(writer, written);
    const rest = reader.take(ALL, ALL);
    const next = (expected.at(-1) ?? 0) + 1;
    const oldest = Math.max(next, written + 1 - (ENTRIES - 1));
    expect(numbers(rest)).toEqual(range(oldest, written + 1));
    expect(rest.lost).toBe(oldest - next);
  }
});

function bytes(value: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

test("bytes of writes: whole, or known to be gone", () => {
  const memory = makeTraceRing(ENTRIES, DATA);
  const writer = new TraceWriter(memory);
  const reader = new TraceReader(memory, true);
  const other = new TraceReader(memory, false);
  const told = (from: TraceReader, max: number): (number[] | undefined)[] => {
    const { entries, data } = from.take(ALL, max);
    return range(0, entries.length / ENTRY_WORDS).map((index) => {
      const [at = 0, length = 0] = [entry.data, entry.length].map(
        (place) => entries[index * ENTRY_WORDS + place],
      );
      return at < 0 ? undefined : Array.from(data.subarray(at, at + length));
    });
  };
  const whole = (value: number, length: number): number[] => [...bytes(value, length)];
  // Across the end of the ring, over what was read, longer than it, and none.
  put(writer, 1, bytes(1, 20));
  expect(told(reader, ALL)).toEqual([whole(1, 20)]);
  put(writer, 2, bytes(2, 20));
  put(writer, 3);
  put(writer, 4, bytes(4, DATA + 1));
  put(writer, 5, bytes(5, 8));
  expect(told(reader, ALL)).toEqual([whole(2, 20), undefined, undefined, whole(5, 8)]);
  // 16 and 24 bytes do not fit together.
  put(writer, 6, bytes(6, 16));
  put(writer, 7, bytes(7, 24));
  expect(told(reader, ALL)).toEqual([undefined, whole(7, 24)]);
  // Entries that exceed an answer come with the next one; an entry that exceeds one by itself comes alone.
  for (const value of [8, 9]) put(writer, value, bytes(value, 16));
  expect(told(reader, 10)).toEqual([whole(8, 16)]);
  expect(told(reader, 10)).toEqual([whole(9, 16)]);
  expect(told(other, ALL).filter((each) => each !== undefined)).toEqual([]);
});

test("what is written over while it is copied is lost", () => {
  const memory = makeTraceRing(ENTRIES, DATA);
  const writer = new TraceWriter(memory);
  const reader = new TraceReader(memory, false);
  for (const number of range(0, 5)) put(writer, number);
  // The first look says what there is, the second what there is when that has been copied.
  const atomics: { load(array: Int32Array, index: number): number } = Atomics;
  const load = spyOn(atomics, "load");
  load.mockImplementationOnce(() => 5);
  load.mockImplementationOnce(() => {
    for (const number of range(5, 10)) put(writer, number);
    return 10;
  });
  const batch = reader.take(ALL, ALL);
  load.mockRestore();
  expect([numbers(batch), batch.lost]).toEqual([[3, 4], 3]);
});

test("a reader beside a writer that never stops", async () => {
  const memory = makeTraceRing(64, 1024);
  const worker = new Worker(new URL("../../support/trace-writer.worker.ts", import.meta.url).href);
  try {
    const reader = new TraceReader(memory, true);
    const count = 300_000;
    let isDone = false;
    worker.addEventListener("message", () => void (isDone = true));
    worker.postMessage({ memory, count });
    let [seen, lost, last] = [0, 0, -1];
    for (let isOver = false; !isOver; await new Promise((resolve) => setImmediate(resolve))) {
      isOver = isDone;
      const batch = reader.take(ALL, 2 ** 20);
      for (const [index, number] of numbers(batch).entries()) {
        expect(number).toBeGreaterThan(last);
        last = number;
        const at = batch.entries[index * ENTRY_WORDS + entry.data] ?? 0;
        if (at >= 0) expect(new Set(batch.data.subarray(at, at + 64))).toEqual(new Set([number % 251]));
      }
      seen += batch.entries.length / ENTRY_WORDS;
      lost += batch.lost;
    }
    expect(seen + lost).toBe(count);
  } finally {
    worker.terminate();
  }
}, 60_000);
