/** The choice of the block size, and of devices that can be served at all. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { userError } from "../support/failure.ts";

const SIZE = 16 * 4096;

function deviceOf(size: number, more: Partial<BlockDevice> = {}): BlockDevice {
  return { size, read: () => undefined, ...more };
}

describe("the block size", () => {
  test.each([
    [undefined, undefined, 512],
    [1024, undefined, 1024],
    [undefined, 4096, 4096],
    [512, 2048, 2048],
    [4096, 4096, 4096],
  ])("of a device of %p, when %p is asked for, is %d", (own, wanted, chosen) => {
    const device = deviceOf(SIZE, own === undefined ? {} : { blockSize: own });
    expect(new Dispatch(device, { blockSize: wanted }).blockSize).toBe(chosen);
  });

  test.each([
    [undefined, 0, "block size 0 cannot be: give 512, 1024, 2048 or 4096"],
    [undefined, 256, "block size 256 cannot be: give 512, 1024, 2048 or 4096"],
    [undefined, 1000, "block size 1000 cannot be: give 512, 1024, 2048 or 4096"],
    [undefined, 8192, "block size 8192 cannot be: give 512, 1024, 2048 or 4096"],
    [undefined, Number.NaN, "block size NaN cannot be: give 512, 1024, 2048 or 4096"],
    [4096, 512, "block size 512 is less than the device's own: give 4096 or more"],
  ])("of a device of %p cannot be %p", (own, wanted, message) => {
    const device = deviceOf(SIZE, own === undefined ? {} : { blockSize: own });
    expect(userError(() => new Dispatch(device, { blockSize: wanted }))).toBe(message);
  });

  test.each([
    [0, undefined, "size 0 is not a whole number of blocks of 512 bytes: give 512, or another block size"],
    [
      100,
      undefined,
      "size 100 is not a whole number of blocks of 512 bytes: give 512, or another block size",
    ],
    [
      1000,
      undefined,
      "size 1000 is not a whole number of blocks of 512 bytes: give 512, or another block size",
    ],
    [
      -512,
      undefined,
      "size -512 is not a whole number of blocks of 512 bytes: give 512, or another block size",
    ],
    [9728, 4096, "size 9728 is not a whole number of blocks of 4096 bytes: give 8192, or another block size"],
  ])("must divide the size: %d by %p", (size, blockSize, message) => {
    expect(userError(() => new Dispatch(deviceOf(size), { blockSize }))).toBe(message);
  });

  test.each([256, 8192, 1000, 512.5])("a device whose own is %d is a mistake in its program", (blockSize) => {
    expect(() => new Dispatch(deviceOf(SIZE, { blockSize }))).toThrow(`a device of block size ${blockSize}`);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, 512.5, 2 ** 53])(
    "a device of size %d is a mistake in its program",
    (size) => {
      expect(() => new Dispatch(deviceOf(size))).toThrow(`a device of size ${size}`);
    },
  );
});
