/** Goal: a RAM disk that is handed over keeps its bytes and its holes, and reading it takes no memory. */
import { describe, expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { adoptRamdisk, byMethods, openShared, Ramdisk, type RamdiskOptions } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { OtherProcess } from "../../src/libc/pidfd.ts";
import { pattern } from "../support/random.ts";

const MIB = 2 ** 20;
const SIZE = 16 * MIB;
const DATA = pattern(MIB);
const AT = 3 * MIB + 4096;
const PLAIN = { fua: false };
const NO_HOLE = { fua: false, mayTrim: false };

/** The disk as another process gets it. */
function handOver(disk: Ramdisk, options: RamdiskOptions): Ramdisk {
  using self = new OtherProcess(process.pid);
  const { bytes = -1, chunks } = disk.files ?? {};
  const copy = { bytes: self.descriptor(bytes), chunks: chunks && self.descriptor(chunks) };
  return adoptRamdisk(disk.size, options, copy);
}

function bytesAt(disk: Pick<BlockDevice, "read">, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xaa);
  void disk.read(bytes, offset);
  return bytes;
}

/** The memory that it uses, in bytes. */
function taken(disk: Ramdisk): number {
  return fstatSync(disk.files?.bytes ?? -1).blocks * 512;
}

describe.each<[string, RamdiskOptions]>([
  ["sparse", { handover: true }],
  ["with huge pages", { handover: true, hugePages: true }],
  ["populated", { handover: true, populate: true }],
])("a RAM disk, %s", (_, options) => {
  test("keeps its bytes, its trims and its zeroes", () => {
    const first = new Ramdisk(SIZE, options);
    first.write(DATA, AT);
    first.write(DATA, 8 * MIB);
    first.trim(8 * MIB, 65_536);
    first.writeZeroes(9 * MIB - 512, 512, NO_HOLE);
    const second = handOver(first, options);
    first.close();
    expect(bytesAt(second, AT, MIB)).toEqual(DATA);
    expect(bytesAt(second, 8 * MIB, 65_536)).toEqual(new Uint8Array(65_536));
    expect(bytesAt(second, 8 * MIB + 65_536, 4096)).toEqual(DATA.slice(65_536, 65_536 + 4096));
    expect(bytesAt(second, 9 * MIB - 1024, 1024)).toEqual(
      Uint8Array.from([...DATA.slice(MIB - 1024, MIB - 512), ...new Uint8Array(512)]),
    );
    // Written before, and trimmed by the one after: it must know that it was.
    second.trim(AT + 4096, 512 * 1024);
    expect(bytesAt(second, AT + 4096, 512 * 1024)).toEqual(new Uint8Array(512 * 1024));
    second.close();
  });

  test("what its holes are the one after knows as well, and other threads do", () => {
    const first = new Ramdisk(SIZE, options);
    first.write(DATA.subarray(0, 4096), AT);
    const second = handOver(first, options);
    expect(second.extents(0, SIZE)).toEqual(first.extents(0, SIZE));
    const thread = openShared(second.shared.state, () => undefined);
    expect(thread.memory).toBeUndefined();
    void thread.write?.(DATA.subarray(0, 4096), 12 * MIB, PLAIN);
    expect(bytesAt(second, 12 * MIB, 4096)).toEqual(DATA.slice(0, 4096));
    void thread.close?.();
    second.close();
    first.close();
  });
});

test("reading what was never written takes no memory, nor does trimming it, and a trim gives some back", () => {
  const disk = new Ramdisk(SIZE, { handover: true });
  const served = byMethods(disk);
  disk.write(DATA, AT);
  // What lies beside it has none, and is given back with it.
  disk.write(DATA.subarray(0, 4096), 8 * MIB);
  const before = taken(disk);
  expect(before).toBeLessThan(2 * MIB);
  for (let at = 0; at < SIZE; at += MIB) bytesAt(served, at, MIB);
  disk.trim(8 * MIB + 8192 + 512, 1024);
  expect(taken(disk)).toBe(before);
  disk.trim(0, SIZE);
  expect(taken(disk)).toBe(0);
  disk.close();
});

test("what was read, and then trimmed by another thread, takes no memory to be read again", () => {
  const disk = new Ramdisk(SIZE, { handover: true });
  const thread = openShared(disk.shared.state, () => undefined);
  // From where on no page is missing: one that is would hide what is remembered of the others.
  const at = 4 * MIB;
  disk.write(DATA, at);
  expect(bytesAt(disk, at, MIB)).toEqual(DATA);
  expect(bytesAt(thread, at, MIB)).toEqual(DATA);
  void thread.trim?.(0, SIZE, PLAIN);
  expect(bytesAt(disk, at, MIB)).toEqual(new Uint8Array(MIB));
  expect(bytesAt(thread, at, MIB)).toEqual(new Uint8Array(MIB));
  expect(taken(disk)).toBe(0);
  void thread.close?.();
  disk.close();
});
