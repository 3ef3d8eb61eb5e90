/** Extents, as a device reports them and as a transport gets them. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice, Extent } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { errno } from "../../src/uapi/errno.ts";
import { ErrnoError } from "../../src/errors.ts";
import { lazily } from "../support/thenable.ts";

const { EIO, EINVAL, ENOSPC } = errno;
const SIZE = 64 * 1024;

function dispatchOf(extents: BlockDevice["extents"], lines: string[] = []): Dispatch {
  const device: BlockDevice = {
    size: SIZE,
    read: () => undefined,
    ...(extents !== undefined && { extents }),
  };
  return new Dispatch(device, { log: (line) => lines.push(line) });
}

const data = (length: number): Extent => ({ length, hole: false, zero: false });
const hole = (length: number): Extent => ({ length, hole: true, zero: true });
const zeroes = (length: number): Extent => ({ length, hole: false, zero: true });

const THREE_KINDS = [hole(1024), zeroes(1024), data(2048)];

test.each<[string, Extent[], Extent[]]>([
  ["as they are", [data(512), hole(1024), data(2560)], [data(512), hole(1024), data(2560)]],
  ["neighbours made one", [data(512), data(512), hole(512), hole(2560)], [data(1024), hole(3072)]],
  ["of any two kinds kept apart", THREE_KINDS, THREE_KINDS],
  ["cut off where the range ends", [data(512), hole(SIZE)], [data(512), hole(3584)]],
  ["without those beyond the end", [data(4096), hole(512), data(512)], [data(4096)]],
  ["fewer than asked for", [data(512)], [data(512)]],
])("extents arrive %s", async (_, given, expected) => {
  expect(dispatchOf(() => given).extents(4096, 4096)).toEqual(expected);
  expect(await dispatchOf(() => Promise.resolve(given)).extents(4096, 4096)).toEqual(expected);
});

const holed = (length: number): Extent => ({ length, hole: true, zero: false });

// Of blocks of 512 and 1024 bytes, in blocks of 4096.
test.each<[string, Extent[], Extent[]]>([
  ["a hole in a block is data", [hole(4096), data(512), hole(3584)], [hole(4096), data(4096)]],
  ["nor is data at its end a hole", [hole(8192 - 512), data(512)], [hole(4096), data(4096)]],
  ["many in one block", Array.from({ length: 8 }, () => hole(512)), [hole(4096)]],
  ["a hole that is zero, and one that is not", [hole(1024), holed(3072)], [holed(4096)]],
  ["a hole, and zeroes", [hole(1024), zeroes(7168)], [zeroes(8192)]],
  ["a last block that is known in part is asked for again", [hole(4096 + 512)], [hole(4096)]],
  ["of one that is known in part nothing is said", [hole(512)], [data(4096)]],
  [
    "out of step with the blocks",
    [data(1024), hole(10_240), data(5120)],
    [data(4096), hole(4096), data(8192)],
  ],
])("in larger blocks, %s", async (_, given, expected) => {
  const device: BlockDevice = { size: SIZE, read: () => undefined, extents: () => given };
  expect(new Dispatch(device, { blockSize: 4096 }).extents(4096, 16_384)).toEqual(expected);
  const promised = { ...device, extents: () => lazily(() => given) };
  expect(await new Dispatch(promised, { blockSize: 4096 }).extents(4096, 16_384)).toEqual(expected);
});

test("no more than 4096 arrive at once", () => {
  const many = Array.from({ length: 5000 }, (_, index) => (index % 2 === 0 ? data(512) : hole(512)));
  const device: BlockDevice = { size: 2 ** 30, read: () => undefined, extents: () => many };
  expect(new Dispatch(device).extents(0, 2 ** 30)).toEqual(many.slice(0, 4096));
});

test("the device is asked for the very range", () => {
  const asked: number[][] = [];
  dispatchOf((offset, length) => {
    asked.push([offset, length]);
    return [data(length)];
  }).extents(512, 1024);
  expect(asked).toEqual([[512, 1024]]);
});

describe("refused", () => {
  test.each([
    [0, 0],
    [512, 100],
    [100, 512],
    [SIZE, 512],
    [0, SIZE + 512],
  ])("a range of %d+%d, which the device does not see", (offset, length) => {
    let calls = 0;
    const dispatch = dispatchOf(() => {
      calls += 1;
      return [data(512)];
    });
    expect(dispatch.extents(offset, length)).toBe(EINVAL);
    expect(calls).toBe(0);
  });

  test("any range, where the device has no extents", () => {
    expect(dispatchOf(undefined).capabilities.extents).toBe(false);
    expect(dispatchOf(undefined).extents(0, 512)).toBe(EINVAL);
  });

  test.each<[string, Extent[], string]>([
    ["none", [], "no extents were given"],
    ["one of half a block", [data(256)], "an extent of 256 bytes"],
    ["an empty one", [data(512), hole(0)], "an extent of 0 bytes"],
    ["a negative one", [data(512), hole(-512)], "an extent of -512 bytes"],
    ["one of no number", [data(Number.NaN)], "an extent of NaN bytes"],
  ])("what the device says, when it is %s", async (_, given, message) => {
    const lines: string[] = [];
    expect(dispatchOf(() => given, lines).extents(0, 4096)).toBe(EIO);
    expect(await dispatchOf(() => Promise.resolve(given), lines).extents(0, 4096)).toBe(EIO);
    expect(lines).toHaveLength(2);
    for (const line of lines) expect(line).toContain(`extents failed (EIO): ${message}`);
  });

  test("what the device throws or rejects is its errno", async () => {
    const full = new ErrnoError("ENOSPC");
    const thrower = dispatchOf(() => {
      throw full;
    });
    expect(thrower.extents(0, 512)).toBe(ENOSPC);
    expect(await dispatchOf(() => Promise.reject(full)).extents(0, 512)).toBe(ENOSPC);
    expect(await dispatchOf(() => Promise.reject(new Error("x"))).extents(0, 512)).toBe(EIO);
  });
});
