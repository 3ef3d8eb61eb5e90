/** The RAM disk: any size, sparse, and giving memory back. */
import { describe, expect, test } from "bun:test";
import { read as readMemory } from "bun:ffi";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { pointer } from "../../src/libc/address.ts";
import { userError } from "../support/failure.ts";
import { memoryUse } from "../support/memory-use.ts";
import { pattern } from "../support/random.ts";

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const DATA = pattern(MIB);

class ClosingRamdisk extends Ramdisk implements Disposable {
  [Symbol.dispose](): void {
    this.close();
  }
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
    const message = `invalid size ${size} of a RAM disk: give a size from 4K to 1T`;
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
