/** Goal: traced requests are printed and stored in order; the number of missing requests is known. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { historyOf } from "../../../src/crash/history.ts";
import { open } from "../../../src/libc/file.ts";
import { kind } from "../../../src/record/format.ts";
import { readRecord, type RecordFile, whyNotWhole } from "../../../src/record/reader.ts";
import { RecordWriter } from "../../../src/record/writer.ts";
import { jsonLine, textLine } from "../../../src/trace/lines.ts";
import { TraceRecord } from "../../../src/trace/record.ts";
import { decodeTraced, type Traced, type TracedRequest } from "../../../src/trace/request.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { O_CREAT, O_RDWR } from "../../../src/uapi/fcntl.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../../src/uapi/nbd.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SIZE = 2 ** 20;

let directory: TemporaryDirectory;
let path: string;
beforeEach(() => {
  directory = new TemporaryDirectory();
  path = directory.join("trace");
});
afterEach(() => directory[Symbol.dispose]());

/** A write of a sector, with the given differences. */
function request(more: Partial<TracedRequest>): TracedRequest {
  return {
    queue: 0,
    command: NBD_CMD_WRITE,
    flags: 0,
    offset: 0,
    length: 512,
    error: 0,
    arrived: 1,
    begun: 1.0123,
    settled: 1.5,
    data: undefined,
    ...more,
  };
}

test.each([
  [
    request({ flags: NBD_CMD_FLAG_FUA, offset: 2048 * 512, length: 4096 }),
    "    0.001500 0 write,fua    2048 + 8                   12.3      487.7 -",
    '{"time":0.0015,"queue":0,"command":"write","offset":1048576,"length":4096,"fua":true,"queued":12.3,"device":487.7,"error":null}',
  ],
  [
    request({ command: NBD_CMD_READ, queue: 3, offset: 1000, error: errno.EINVAL, begun: 1, settled: 1 }),
    "    0.001000 3 read         1000B + 1                   0.0        0.0 EINVAL",
    '{"time":0.001,"queue":3,"command":"read","offset":1000,"length":512,"fua":false,"queued":0,"device":0,"error":"EINVAL"}',
  ],
  [
    request({ command: NBD_CMD_WRITE_ZEROES, flags: NBD_CMD_FLAG_NO_HOLE, settled: 100_000.5 }),
    "  100.000500 0 zero,no-hole 0 + 1                      12.3 99999487.7 -",
    '{"time":100.0005,"queue":0,"command":"zero","offset":0,"length":512,"fua":false,"queued":12.3,"device":99999487.7,"error":null}',
  ],
  [
    request({ command: 7, length: 0, begun: 1, settled: 1 }),
    "    0.001000 0 command-7    0 + 0                       0.0        0.0 -",
    '{"time":0.001,"queue":0,"command":"command-7","offset":0,"length":0,"fua":false,"queued":0,"device":0,"error":null}',
  ],
])("a line of text, and one of JSON: %#", (traced, text, json) => {
  expect([textLine(traced), jsonLine(traced)]).toEqual([text, json]);
});

test.each([
  {},
  { queues: [1] },
  { queues: [{ entries: "", data: "", lost: "1", origin: 0 }] },
  { queues: [{ data: "", lost: 1, origin: 0 }] },
])("what is no trace is refused: %p", (answer) => {
  expect(() => decodeTraced(answer, 0)).toThrow("traces in another way");
});

/** Makes a record of it. */
function recorded(traced: Partial<Traced>, wantsData = true): RecordFile {
  const writer = new RecordWriter(
    open(path, O_RDWR | O_CREAT, 0o600),
    path,
    { size: SIZE, writeThrough: false, isTrace: true },
    { limit: Infinity, report: (line) => expect(line).toBe("") },
  );
  const record = new TraceRecord(writer, SIZE, wantsData);
  record.add({ queues: 1, requests: [], lost: 0, isMore: false, ...traced });
  writer.close();
  return readRecord(path);
}

/** `write 0 at 1000000`, in the order of the record. */
function told({ events }: RecordFile): string[] {
  const names = Object.fromEntries(Object.entries(kind).map(([name, value]) => [value, name]));
  return events.map(({ kind: what, request: number, time }) => `${names[what]} ${number} at ${time}`);
}

const DATA = new Uint8Array(512).fill(7);

test("a record of a trace says what was in flight together, and crash uses it", () => {
  // The flush covers the first write, which was answered before it came, and not the second, which was in flight.
  const record = recorded({
    requests: [
      request({ arrived: -2, settled: 1, data: DATA }),
      request({ command: NBD_CMD_FLUSH, length: 0, arrived: 2, settled: 4 }),
      request({ offset: 512, arrived: 1, settled: 5, data: DATA }),
      request({ command: NBD_CMD_READ, arrived: 5, settled: 5 }),
    ],
  });
  expect(told(record)).toEqual([
    "write 1 at 0",
    "done 1 at 1000000",
    "write 3 at 1000000",
    "flush 2 at 2000000",
    "done 2 at 4000000",
    "done 3 at 5000000",
    "read 4 at 5000000",
    "done 4 at 5000000",
  ]);
  expect(whyNotWhole(record)).toBeUndefined();
  expect(historyOf(record).changes.map(({ first, durable }) => [first, durable])).toEqual([
    [0, 4],
    [1, Infinity],
  ]);
});

test.each([
  {
    requests: [request({})],
    wantsData: false,
    expected: "has writes without their bytes: trace with --data",
  },
  { requests: [request({})], wantsData: true, expected: "misses 1 requests, which were not traced" },
  { requests: [request({ data: DATA })], lost: 3, expected: "misses 3 requests" },
  // The device has grown.
  { requests: [request({ offset: SIZE, data: DATA })], expected: "misses 1 requests" },
  {
    requests: [request({ data: DATA }), request({ offset: SIZE, error: errno.ENOSPC })],
    expected: undefined,
  },
  { requests: [request({ data: DATA }), request({ command: 7, offset: 1 })], expected: undefined },
])("what is missing for crash: $expected", ({ expected, wantsData = true, ...traced }) => {
  const missing = whyNotWhole(recorded(traced, wantsData));
  if (expected === undefined) expect(missing).toBeUndefined();
  else expect(missing).toContain(expected);
});

test("a trace that is cut off anywhere says all that comes before", () => {
  const count = 3;
  const requests = Array.from({ length: count }, (_, index) =>
    request({ arrived: index, settled: index + 1 }),
  );
  const whole = told(recorded({ requests }, false));
  // A header, and for each request a record of when it came and one of when it was answered.
  const [header, head] = [64, 40];
  for (let length = header + 2 * count * head - 1; length >= header; length -= 1) {
    truncateSync(path, length);
    const record = readRecord(path);
    const complete = Math.floor((length - header) / head);
    expect(told(record), `${length}`).toEqual(whole.slice(0, complete));
    expect(record.cutOffAt, `${length}`).toBe(
      (length - header) % head === 0 ? undefined : header + complete * head,
    );
  }
});
