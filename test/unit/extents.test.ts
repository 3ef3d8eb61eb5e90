/** Which parts of a device are holes, for the devices of this project. */
import { describe, expect, test } from "bun:test";
import { Loop } from "../../devices/loop.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { Extent } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { libc } from "../../src/index.ts";
import { pattern } from "../support/random.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 256 * KIB;

const data = (length: number): Extent => ({ length, hole: false, zero: false });
const hole = (length: number): Extent => ({ length, hole: true, zero: true });

describe("a RAM disk", () => {
  test("has data where it was written, until that is trimmed", () => {
    const disk = new Ramdisk(SIZE);
    const dispatch = new Dispatch(disk);
    expect(dispatch.extents(0, SIZE)).toEqual([hole(SIZE)]);
    disk.write(pattern(64 * KIB), 128 * KIB);
    disk.write(pattern(512), 0);
    expect(dispatch.extents(64 * KIB, 128 * KIB)).toEqual([hole(64 * KIB), data(64 * KIB)]);
    expect(dispatch.extents(512, 512)).toEqual([data(512)]);
    disk.trim(128 * KIB, 64 * KIB);
    expect(dispatch.extents(64 * KIB, 192 * KIB)).toEqual([hole(192 * KIB)]);
    disk.close();
  });

  test.each([{}, { populate: true }])(
    "is looked at up to 64 MiB at a time where it was written (%o)",
    (options) => {
      const disk = new Ramdisk(80 * MIB, options);
      // Written, as far as the disk knows; that takes no memory.
      for (let at = 0; at < disk.size; at += MIB) disk.memory.admit?.(at, MIB);
      const extents = disk.extents(0, disk.size);
      expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(64 * MIB);
      disk.close();
    },
  );

  test("tells of data on a terabyte wherever it lies", () => {
    const disk = new Ramdisk(2 ** 40);
    const dispatch = new Dispatch(disk);
    for (const at of [0, 2 ** 31, 2 ** 39, 2 ** 40 - 4096]) disk.write(pattern(4096), at);
    const length = 2 ** 32 - 4096;
    const far = [data(4096), hole(2 ** 31 - 4096), data(4096), hole(length - 2 ** 31 - 4096)];
    expect(dispatch.extents(0, length)).toEqual(far);
    expect(dispatch.extents(2 ** 39 - 4096, length)).toEqual([hole(4096), data(4096), hole(length - 8192)]);
    expect(dispatch.extents(2 ** 40 - 8192, 8192)).toEqual([hole(4096), data(4096)]);
    disk.close();
  });

  test("with data in very many places is told of in pieces", () => {
    const disk = new Ramdisk(64 * MIB);
    const dispatch = new Dispatch(disk);
    for (let at = 0; at < disk.size; at += MIB) disk.write(pattern(4096), at);
    let places = 0;
    for (let at = 0; at < disk.size;) {
      const extents = dispatch.extents(at, disk.size - at);
      if (typeof extents === "number" || extents instanceof Promise) throw new Error("no extents");
      for (const extent of extents) {
        expect(extent.hole).toBe(at % MIB !== 0);
        if (!extent.hole) expect(extent.length).toBe(4096);
        if (!extent.hole) places += 1;
        at += extent.length;
      }
    }
    expect(places).toBe(64);
    disk.close();
  });
});

describe("a file", () => {
  test("has data where the file system has", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("file");
    const disk = new Loop(path, { create: SIZE });
    expect(disk.extents?.(0, SIZE)).toEqual([hole(SIZE)]);
    await disk.write?.(pattern(64 * KIB), 64 * KIB, { fua: false });
    expect(disk.extents?.(0, SIZE)).toEqual([hole(64 * KIB)]);
    expect(disk.extents?.(64 * KIB, SIZE - 64 * KIB)).toEqual([data(64 * KIB)]);
    expect(disk.extents?.(128 * KIB, 64 * KIB)).toEqual([hole(64 * KIB)]);
    expect(disk.extents?.(96 * KIB, 512)).toEqual([data(512)]);
    await disk.close();
  });

  test("a block that is partly data is data, where blocks are larger than the file's", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("file");
    const fd = libc.open(path, libc.O_RDWR | libc.O_CREAT, 0o600);
    libc.ftruncate(fd, SIZE);
    libc.pwrite(fd, pattern(4096), 64 * KIB);
    libc.close(fd);
    // The device begins 512 bytes into the file's blocks.
    const disk = new Loop(path, { offset: 512 });
    expect(disk.extents?.(0, 128 * KIB)).toEqual([hole(64 * KIB - 512)]);
    expect(disk.extents?.(64 * KIB - 512, 64 * KIB)).toEqual([data(4096)]);
    await disk.close();
  });
});
