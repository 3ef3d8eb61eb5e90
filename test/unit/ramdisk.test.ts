/** The RAM disk: any size, sparse, and giving memory back. */
import { describe, expect, test } from "bun:test";
import { read as readMemory } from "bun:ffi";
import { Ramdisk, type RamdiskOptions } from "../../devices/ramdisk.ts";
import { pointer } from "../../src/libc/address.ts";
import { userError } from "../support/failure.ts";
import { memoryUse } from "../support/memory-use.ts";
import { pattern } from "../support/random.ts";

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const HOLE = { fua: false, mayTrim: true };
const NO_HOLE = { fua: false, mayTrim: false };
const DATA = pattern(MIB);

class ClosingRamdisk extends Ramdisk implements Disposable {
  [Symbol.dispose](): void {
    this.close();
  }
}

/** A RAM disk full of data. */
function fullDisk(size: number, options: RamdiskOptions = {}): ClosingRamdisk {
  const disk = new ClosingRamdisk(size, options);
  for (let at = 0; at < size; at += MIB) disk.write(DATA.subarray(0, Math.min(MIB, size - at)), at);
  return disk;
}

function bytesAt(disk: Ramdisk, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xaa);
  disk.read(bytes, offset);
  return bytes;
}

describe("size", () => {
  test.each([4096, 8192, MIB, TIB])("%d bytes are there, all zero", (size) => {
    using disk = new ClosingRamdisk(size);
    expect(disk.size).toBe(size);
    expect(bytesAt(disk, 0, 4096)).toEqual(new Uint8Array(4096));
    expect(bytesAt(disk, size - 4096, 4096)).toEqual(new Uint8Array(4096));
  });

  test.each([0, -4096, 4095, 512, TIB + 4096, Number.MAX_SAFE_INTEGER])("%d bytes cannot be", (size) => {
    const message = `a RAM disk of ${size} bytes cannot be: give a size from 4K to 1T`;
    expect(userError(() => new Ramdisk(size))).toBe(message);
  });

  test("a disk of 1 TiB keeps data at both ends and in the middle, in little memory", () => {
    const before = memoryUse().resident;
    using disk = new ClosingRamdisk(TIB);
    const places = [0, 4 * 2 ** 30 - 2048, 512 * 2 ** 30, TIB - 4096];
    for (const [index, place] of places.entries()) disk.write(DATA.subarray(index, index + 4096), place);
    for (const [index, place] of places.entries()) {
      expect(bytesAt(disk, place, 4096)).toEqual(DATA.slice(index, index + 4096));
    }
    expect(bytesAt(disk, 4096, 4096)).toEqual(new Uint8Array(4096));
    expect(memoryUse().resident - before).toBeLessThan(8 * MIB);
  });
});

test("the memory window shows the bytes that write stored, and read sees those put there", () => {
  using disk = new ClosingRamdisk(MIB);
  disk.write(DATA.subarray(0, 512), 512);
  const address = pointer(disk.memory.address);
  expect(readMemory.u8(address, 511)).toBe(0);
  for (const index of [0, 1, 511]) expect(readMemory.u8(address, 512 + index)).toBe(DATA[index] ?? -1);
});

/** By how many bytes `action` changes the resident memory. */
function residentChange(action: () => void): number {
  const before = memoryUse().resident;
  action();
  return memoryUse().resident - before;
}

describe("memory", () => {
  const SIZE = 64 * MIB;
  /** What may come or go for other reasons. */
  const SLACK = 12 * MIB;

  test("comes with the first write and goes with close", () => {
    const disk = new Ramdisk(SIZE);
    const filled = residentChange(() => {
      for (let at = 0; at < SIZE; at += MIB) disk.write(DATA, at);
    });
    expect(filled).toBeGreaterThan(SIZE - SLACK);
    const before = memoryUse().virtual;
    expect(residentChange(() => disk.close())).toBeLessThan(SLACK - SIZE);
    expect(before - memoryUse().virtual).toBeGreaterThan(SIZE - SLACK);
  });

  test.each<[string, boolean, (disk: Ramdisk) => void]>([
    ["trim of a populated disk", true, (disk) => disk.trim(0, SIZE)],
    ["writeZeroes of a populated disk that may trim", true, (disk) => disk.writeZeroes(0, SIZE, HOLE)],
    [
      "writeZeroes without a hole, where none was promised",
      false,
      (disk) => disk.writeZeroes(0, SIZE, NO_HOLE),
    ],
  ])("goes with %s", (_, populate, action) => {
    using disk = fullDisk(SIZE, { populate });
    expect(residentChange(() => action(disk))).toBeLessThan(SLACK - SIZE);
    expect(bytesAt(disk, 0, MIB)).toEqual(new Uint8Array(MIB));
    expect(bytesAt(disk, SIZE - MIB, MIB)).toEqual(new Uint8Array(MIB));
  });

  test("is all there from the start when populated", () => {
    const disks: Ramdisk[] = [];
    const change = residentChange(() => disks.push(new Ramdisk(SIZE, { populate: true })));
    for (const disk of disks) disk.close();
    expect(change).toBeGreaterThan(SIZE - SLACK);
  });

  test("of a populated disk stays with writeZeroes without a hole", () => {
    using disk = fullDisk(SIZE, { populate: true });
    const change = residentChange(() => disk.writeZeroes(0, SIZE, NO_HOLE));
    expect(change).toBeGreaterThan(-SLACK);
    expect(bytesAt(disk, 0, MIB)).toEqual(new Uint8Array(MIB));
    expect(bytesAt(disk, SIZE - MIB, MIB)).toEqual(new Uint8Array(MIB));
  });

  test("is not taken by zeroing parts of pages that were never written", () => {
    using disk = new ClosingRamdisk(SIZE);
    const change = residentChange(() => {
      for (let at = 0; at < SIZE; at += 4096) disk.trim(at + 512, 1024);
      for (let at = 0; at < SIZE; at += 4096) disk.writeZeroes(at + 2048, 512, HOLE);
    });
    expect(change).toBeLessThan(SLACK);
  });
});
