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

  test.each([0, 256, 1000, 8192, Number.NaN])("cannot be %d", (blockSize) => {
    expect(userError(() => new Dispatch(deviceOf(SIZE), { blockSize }))).toBe(
      `block size ${blockSize} is invalid: give 512, 1024, 2048 or 4096`,
    );
  });

  test("is not less than the device's own", () => {
    const device = deviceOf(SIZE, { blockSize: 4096 });
    expect(userError(() => new Dispatch(device, { blockSize: 512 }))).toBe(
      "block size 512 is less than the device's own: give 4096 or more",
    );
  });

  test.each([
    [0, 512, 512],
    [100, 512, 512],
    [1000, 512, 512],
    [-512, 512, 512],
    [9728, 4096, 8192],
  ])("must divide the size: %d by %d", (size, blockSize, fitting) => {
    expect(userError(() => new Dispatch(deviceOf(size), { blockSize }))).toBe(
      `size ${size} is not a whole number of blocks of ${blockSize} bytes: give ${fitting}, or another block size`,
    );
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
