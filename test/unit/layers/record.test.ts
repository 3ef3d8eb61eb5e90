/** Goal: a record holds the device's requests and their times, and a failing record does not affect the device. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, existsSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import type { BlockDevice } from "../../../src/device.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { markRecords, recordLayer } from "../../../src/layers/record.ts";
import { kind } from "../../../src/record/format.ts";
import { markText, readRecord } from "../../../src/record/reader.ts";
import { pattern } from "../../support/random.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SIZE = 2 ** 20;
const PLAIN = { fua: false };

let directory: TemporaryDirectory;
let path: string;
beforeEach(() => {
  directory = new TemporaryDirectory();
  path = directory.join("record");
});
afterEach(() => directory[Symbol.dispose]());

/** `write 0+512 fua #1`, `done #1 failed`: the contents of a record. */
function told(from = path): string[] {
  const record = readRecord(from);
  const names = Object.fromEntries(Object.entries(kind).map(([name, value]) => [value, name]));
  return record.events.map((event) => {
    const words = [names[event.kind]];
    if (event.kind === kind.mark) words.push(markText(record, event));
    else words.push(`#${event.request}`);
    if (event.length > 0) words.push(`${event.offset}+${event.length}`);
    if (event.fua) words.push("fua");
    if (event.failed) words.push("failed");
    return words.join(" ");
  });
}

test("every change, what it held, and the order in which requests began and were answered", async () => {
  const answers: PromiseWithResolvers<void>[] = [];
  const later = (): Promise<void> => {
    const answer = Promise.withResolvers<void>();
    answers.push(answer);
    return answer.promise;
  };
  const below: BlockDevice = {
    size: SIZE,
    fua: "native",
    read: (target) => void target.fill(1),
    write: later,
    flush: later,
    trim: () => undefined,
    writeZeroes: () => {
      throw new ErrnoError("ENOSPC");
    },
  };
  const device = recordLayer({ file: path })({ ...below, identity: "x" });
  const data = pattern(1024);
  const pending = [
    device.write?.(data, 512, { fua: true }),
    device.flush?.(),
    device.write?.(data.subarray(0, 512), 4096, PLAIN),
  ].map((done) => Promise.resolve(done).catch((error: unknown) => error));
  expect(() => device.writeZeroes?.(8192, 4096, { fua: false, mayTrim: true })).toThrow("ENOSPC");
  await device.trim?.(0, SIZE, PLAIN);
  await device.read(new Uint8Array(512), 0);
  expect(markRecords("half way")).toBe(1);
  answers[2]?.reject(new ErrnoError("EIO"));
  await pending[2];
  answers[0]?.resolve();
  answers[1]?.resolve();
  await Promise.all(pending);
  await device.close?.();
  expect(markRecords("too late")).toBe(0);
  expect(told()).toEqual([
    "write #1 512+1024 fua",
    "flush #2",
    "write #3 4096+512",
    "zero #4 8192+4096",
    "done #4 failed",
    `trim #5 0+${SIZE}`,
    "done #5",
    "mark half way",
    "done #3 failed",
    "done #1",
    "done #2",
  ]);
  const record = readRecord(path);
  const at = record.events[0]?.at ?? 0;
  expect(record.bytes.slice(at, at + data.length)).toEqual(data);
  expect(record).toMatchObject({ size: SIZE, writeThrough: false, cutOffAt: undefined });
  // Another process cannot continue its record.
  expect(device.identity).toBeUndefined();
});

test("a record that is cut off anywhere, or damaged at its end, says all that comes before", async () => {
  const device = recordLayer({ file: path })(new Ramdisk(SIZE));
  for (const byte of [1, 2]) await device.write?.(new Uint8Array(512).fill(byte), byte * 512, PLAIN);
  await device.close?.();
  const whole = told();
  const end = statSync(path).size;
  // A write's record is 552 bytes long, that of its answer 40.
  const ends = [64, 616, 656, 1208, end];
  const cut = directory.join("cut");
  for (let length = 64; length < end; length += 1) {
    copyFileSync(path, cut);
    truncateSync(cut, length);
    const complete = ends.filter((each) => each <= length).length - 1;
    expect(told(cut), `${length}`).toEqual(whole.slice(0, complete));
    expect(readRecord(cut).cutOffAt, `${length}`).toBe(ends.includes(length) ? undefined : ends[complete]);
  }
});

test("a device that can be resized keeps its size: the record is of a disk of one size", async () => {
  const below = { size: SIZE, read: () => undefined, resize: () => undefined };
  const device = recordLayer({ file: path })(below);
  expect(new Dispatch(device).canResize).toBe(false);
  await device.close?.();
});

test("the name of a record in which nothing is can be used again", async () => {
  for (const count of [0, 1]) {
    const device = recordLayer({ file: path })(new Ramdisk(SIZE));
    for (let written = 0; written < count; written += 1) await device.write?.(new Uint8Array(512), 0, PLAIN);
    await device.close?.();
  }
  expect(told()).toEqual(["write #1 0+512", "done #1"]);
});

test("a full record ends with a line, and the device goes on", async () => {
  const lines: string[] = [];
  const report = (line: string): void => void lines.push(line);
  const device = recordLayer({ file: path, size: 2000, report })(new Ramdisk(SIZE));
  for (let block = 0; block < 10; block += 1)
    await device.write?.(new Uint8Array(512).fill(block + 1), block * 512, PLAIN);
  expect(markRecords("not recorded")).toBe(0);
  const read = new Uint8Array(512);
  await device.read(read, 9 * 512);
  expect(read[0]).toBe(10);
  await device.close?.();
  expect(lines).toEqual([
    `record: ${path} has its 2000 bytes: it ends here, and can be used up to here; give it a larger size= for a longer one`,
  ]);
  expect(readRecord(path)).toMatchObject({ cutOffAt: undefined });
  expect(told()).toHaveLength(6);
});

test.each([
  [
    "a file with something in it",
    (at: string) => writeFileSync(at, "mine"),
    "is there already: give another name",
  ],
  [
    "the record of another device",
    (at: string) => void recordLayer({ file: at })(new Ramdisk(SIZE)),
    "is the record of",
  ],
  ["a pipe", (at: string) => void Bun.spawnSync(["mkfifo", at]), "is not a regular file"],
])("%s is refused", (_, make, message) => {
  make(path);
  const before = statSync(path).size;
  expect(() => recordLayer({ file: path })(new Ramdisk(SIZE))).toThrow(message);
  expect(existsSync(path)).toBe(true);
  expect(statSync(path).size).toBe(before);
});
