/** Copy on write: the device below never changes. */
import { describe, expect, test } from "bun:test";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import type { BlockDevice } from "../../../src/device.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { cowLayer } from "../../../src/layers/cow.ts";
import { SlowStore } from "../../support/async-devices.ts";
import {
  base,
  BLOCK,
  changed,
  contents,
  DATA,
  HOLE,
  NO_HOLE,
  PLAIN,
  RANGES,
  SIZE,
} from "../../support/cow-base.ts";
import { userError } from "../../support/failure.ts";
import { pattern } from "../../support/random.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

describe.each<[string, () => { readonly bytes: Uint8Array } & BlockDevice]>([
  ["a synchronous device", base],
  [
    "an asynchronous device",
    () => {
      const disk = new SlowStore(SIZE);
      disk.bytes.set(DATA);
      return disk;
    },
  ],
])("over %s", (_, makeBase) => {
  test.each(RANGES)("a change of %d+%d changes that, and nothing below", async (offset, length) => {
    const source = pattern(length, 2);
    const zeroes = new Uint8Array(length);
    const changes: readonly (readonly [(cow: BlockDevice) => unknown, Uint8Array | undefined])[] = [
      [(cow) => cow.write?.(source, offset, PLAIN), source],
      [(cow) => cow.writeZeroes?.(offset, length, HOLE), zeroes],
      [(cow) => cow.writeZeroes?.(offset, length, NO_HOLE), zeroes],
      // A trimmed range may hold anything.
      [(cow) => cow.trim?.(offset, length, PLAIN), undefined],
    ];
    for (const [change, after] of changes) {
      const below = makeBase();
      const cow = cowLayer()(below);
      await change(cow);
      const found = await contents(cow);
      const expected = changed((bytes) =>
        bytes.set(after ?? found.subarray(offset, offset + length), offset),
      );
      expect(Buffer.compare(found, expected)).toBe(0);
      expect(Buffer.compare(below.bytes, DATA)).toBe(0);
      await cow.close?.();
    }
  });
});

test("parts of one block that are written together are all kept", async () => {
  const disk = new SlowStore(SIZE);
  disk.bytes.set(DATA);
  const cow = cowLayer()(disk);
  const sources = Array.from({ length: 7 }, (_, index) => pattern(BLOCK, index + 10));
  await Promise.all(sources.map((source, index) => cow.write?.(source, index * BLOCK, PLAIN)));
  const expected = changed((bytes) => sources.forEach((source, index) => bytes.set(source, index * BLOCK)));
  expect(Buffer.compare(await contents(cow), expected)).toBe(0);
});

test("a read that fails in part is over only when every part is", async () => {
  const late = Promise.withResolvers<void>();
  const below: BlockDevice = {
    size: SIZE,
    read: (_, offset) => (offset === 0 ? late.promise : Promise.reject(new ErrnoError("EIO"))),
  };
  const cow = cowLayer()(below);
  await cow.write?.(new Uint8Array(4096), 4096, PLAIN);
  let isOver = false;
  const reading = (async () => cow.read(new Uint8Array(3 * 4096), 0))();
  const outcome = reading.catch((error: unknown) => {
    isOver = true;
    return error;
  });
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  expect(isOver).toBe(false);
  late.resolve();
  expect(await outcome).toMatchObject({ code: "EIO" });
});

test("a block that could not be copied is not taken for copied", async () => {
  const below = base();
  const cow = cowLayer()(below);
  below.faults.set("read", () => {
    throw new ErrnoError("EIO");
  });
  expect(() => cow.write?.(new Uint8Array(BLOCK), 0, PLAIN)).toThrow(ErrnoError);
  expect(Buffer.compare(await contents(cow), DATA)).toBe(0);
});

test("a block that arrives after the end is nobody's", async () => {
  using directory = new TemporaryDirectory();
  for (const options of [{}, { file: directory.join("overlay") }]) {
    const late = Promise.withResolvers<void>();
    const cow = cowLayer(options)({ size: SIZE, read: () => late.promise });
    const writing = Promise.try(() => cow.write?.(new Uint8Array(BLOCK), 0, PLAIN));
    const outcome = writing.catch((error: unknown) => error);
    await cow.close?.();
    late.resolve();
    expect(await outcome).toMatchObject({ code: "EIO", message: "the overlay is closed" });
  }
});

test("a read-only device becomes writable; what is on memory needs no flush", () => {
  const cow = cowLayer()({ size: SIZE, read: (target) => void target.fill(1) });
  expect(cow.write).toBeFunction();
  expect(cow.trim).toBeFunction();
  expect("flush" in cow).toBe(false);
  expect("extents" in cow).toBe(false);
});

test("extents are those below where nothing was written", async () => {
  const all = { length: 2 * SIZE, hole: true, zero: true };
  for (const extents of [() => [all], async () => [all]]) {
    const cow = cowLayer()({ ...base(), size: SIZE, read: () => undefined, extents });
    await cow.write?.(new Uint8Array(4096), 4096, PLAIN);
    expect(await cow.extents?.(BLOCK, 2 * 4096)).toEqual([{ ...all, length: 4096 - BLOCK }]);
    expect(await cow.extents?.(4096, 2 * 4096)).toEqual([{ length: 4096, hole: false, zero: false }]);
  }
});

test("a device that is too large is refused", () => {
  expect(userError(() => cowLayer()({ ...base(), size: 2 ** 45, read: () => undefined }))).toBe(
    `a copy-on-write layer cannot cover ${2 ** 45} bytes: give a device of at most 16T`,
  );
});

test("a terabyte in memory: what was written is there, in little memory", async () => {
  const size = 2 ** 40;
  const cow = cowLayer()(new Ramdisk(size));
  const source = pattern(4096, 5);
  for (const offset of [0, 2 ** 32 - BLOCK, size - 4096]) {
    void cow.write?.(source, offset, PLAIN);
    const target = new Uint8Array(4096);
    void cow.read(target, offset);
    expect(target).toEqual(source);
  }
  await cow.close?.();
});
