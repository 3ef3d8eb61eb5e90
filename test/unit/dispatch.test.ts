/** The gate between transport and device: ranges, capabilities, and FUA. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch, type Status } from "../../src/dispatch.ts";
import { errno } from "../../src/uapi/errno.ts";
import { ErrnoError } from "../../src/errors.ts";
import { MemoryShadow, NativeShadow, Shadow } from "../support/shadow.ts";

const { EPERM, EIO, EINVAL, ENOSPC } = errno;
const SIZE = 16 * 4096;

const nothing = (): void => undefined;

/** A device of `size` bytes that takes everything. */
function deviceOf(size: number, more: Partial<BlockDevice> = {}): BlockDevice {
  return {
    size,
    read: nothing,
    write: nothing,
    flush: nothing,
    trim: nothing,
    writeZeroes: nothing,
    ...more,
  };
}

/** The least a device can be. */
function readOnlyDevice(more: Partial<BlockDevice> = {}): BlockDevice {
  return { size: SIZE, read: () => undefined, ...more };
}

describe("ranges", () => {
  const HUGE = 2 ** 53 - 512;

  // Size, block size, offset, length, whether the range is valid, and the errno of a write.
  test.each([
    [SIZE, 512, 0, 512, 0, "the first block"],
    [SIZE, 512, 0, SIZE, 0, "all"],
    [SIZE, 512, SIZE - 512, 512, 0, "the last block"],
    [SIZE, 512, SIZE, 512, ENOSPC, "the block after the last"],
    [SIZE, 512, SIZE - 512, 1024, ENOSPC, "across the end"],
    [SIZE, 512, 512, SIZE, ENOSPC, "one block too long"],
    [SIZE, 512, 0, SIZE + 512, ENOSPC, "longer than all"],
    [SIZE, 512, 0, 0, EINVAL, "nothing"],
    [SIZE, 512, SIZE, 0, EINVAL, "nothing, at the end"],
    [SIZE, 512, 0, 511, EINVAL, "a byte less than a block"],
    [SIZE, 512, 0, 513, EINVAL, "a byte more than a block"],
    [SIZE, 512, 1, 512, EINVAL, "from the second byte"],
    [SIZE, 512, SIZE - 511, 512, ENOSPC, "a byte beyond the end"],
    [SIZE, 1024, 512, 1024, EINVAL, "off by half a block"],
    [SIZE, 4096, 4096, 4096, 0, "a block of 4096"],
    [SIZE, 4096, 2048, 4096, EINVAL, "off by half a block of 4096"],
    [SIZE, 4096, 4096, 2048, EINVAL, "half a block of 4096"],
    [SIZE, 4096, SIZE - 4096, 4096, 0, "the last block of 4096"],
    [HUGE, 512, HUGE - 512, 512, 0, "the last block that a number can tell"],
    [HUGE, 512, HUGE, 512, ENOSPC, "beyond the last block that a number can tell"],
    [HUGE, 512, HUGE - 512, 2 ** 32 - 512, ENOSPC, "4 GiB from the last block"],
    [SIZE, 512, 2 ** 64, 512, ENOSPC, "an offset beyond all devices"],
  ])("size %d, blocks of %d: %d+%d is %d for a write: %s", (size, blockSize, offset, length, error) => {
    const dispatch = new Dispatch(deviceOf(size), { blockSize });
    expect(dispatch.checkWrite(offset, length, false)).toBe(error);
    expect(dispatch.checkWrite(offset, length, true)).toBe(error);
    expect(dispatch.checkRead(offset, length)).toBe(error === 0 ? 0 : EINVAL);
    // Trim and writeZeroes do their own check.
    expect(dispatch.trim(offset, length, false)).toBe(error);
    expect(dispatch.writeZeroes(offset, length, false, false)).toBe(error);
  });

  test("a wrong range does not reach the device", () => {
    const device = new Shadow(SIZE);
    const dispatch = new Dispatch(device);
    dispatch.trim(SIZE, 512, true);
    dispatch.writeZeroes(1, 512, true, true);
    expect(device.calls).toEqual([]);
  });
});

describe("capabilities", () => {
  const NONE = {
    write: false,
    flush: false,
    fua: false,
    trim: false,
    writeZeroes: false,
    rotational: false,
    extents: false,
  };

  test.each<[string, Partial<BlockDevice>, object]>([
    ["read alone", {}, {}],
    ["write", { write: nothing }, { write: true }],
    ["flush, and so FUA", { write: nothing, flush: nothing }, { write: true, flush: true, fua: true }],
    ["native FUA, but no cache to force", { write: nothing, fua: "native" }, { write: true }],
    ["trim without write", { trim: nothing }, {}],
    ["write and trim", { write: nothing, trim: nothing }, { write: true, trim: true }],
    ["writeZeroes without write", { writeZeroes: nothing }, {}],
    ["write and zeroes", { write: nothing, writeZeroes: nothing }, { write: true, writeZeroes: true }],
    ["rotational", { rotational: true }, { rotational: true }],
  ])("%s", (_, methods, expected) => {
    expect(new Dispatch(readOnlyDevice(methods)).capabilities).toEqual({ ...NONE, ...expected });
  });

  test("all, served read-only", () => {
    const { capabilities } = new Dispatch(deviceOf(SIZE), { readOnly: true });
    expect(capabilities).toEqual({ ...NONE, flush: true });
  });

  test("what is not offered is refused: EPERM without write, EINVAL without the method or FUA", () => {
    const reader = new Dispatch(readOnlyDevice());
    expect(reader.checkWrite(0, 512, false)).toBe(EPERM);
    expect(reader.write(new Uint8Array(512), 0, false)).toBe(EPERM);
    expect(reader.trim(0, 512, false)).toBe(EPERM);
    expect(reader.writeZeroes(0, 512, false, false)).toBe(EPERM);
    const writer = new Dispatch(readOnlyDevice({ write: nothing }));
    expect(writer.checkWrite(0, 512, true)).toBe(EINVAL);
    expect(writer.trim(0, 512, false)).toBe(EINVAL);
    expect(writer.writeZeroes(0, 512, false, false)).toBe(EINVAL);
    expect(writer.flush()).toBe(0);
  });

  test("the address is that of the memory, or -1", () => {
    const memory = new MemoryShadow(SIZE);
    expect(new Dispatch(memory).memoryAddress).toBe(memory.memory.address);
    expect(new Dispatch(new Shadow(SIZE)).memoryAddress).toBe(-1);
    memory.close();
  });
});

/** One call of each method that can have FUA. */
const CHANGES: readonly (readonly [string, (dispatch: Dispatch, fua: boolean) => Status])[] = [
  ["write", (dispatch, fua) => dispatch.write(new Uint8Array(512), 512, fua)],
  ["trim", (dispatch, fua) => dispatch.trim(512, 512, fua)],
  ["writeZeroes", (dispatch, fua) => dispatch.writeZeroes(512, 512, fua, true)],
];

describe.each(CHANGES)("FUA of %s", (method, change) => {
  test("is emulated by a flush afterwards", () => {
    const device = new Shadow(SIZE);
    expect(change(new Dispatch(device), true)).toBe(0);
    expect(device.calls).toEqual([`${method} 512+512`, "flush"]);
  });

  test("is a native device's own affair", () => {
    const device = new NativeShadow(SIZE);
    expect(change(new Dispatch(device), true)).toBe(0);
    expect(device.calls).toEqual([`${method} 512+512 fua`]);
  });

  test("without it nothing is flushed", () => {
    const [plain, native] = [new Shadow(SIZE), new NativeShadow(SIZE)];
    for (const device of [plain, native]) {
      expect(change(new Dispatch(device), false)).toBe(0);
      expect(device.calls).toEqual([`${method} 512+512`]);
    }
  });

  test("nothing is flushed when the change failed", () => {
    const device = new Shadow(SIZE);
    device.faults.set(method, () => {
      throw new ErrnoError("ENOSPC");
    });
    expect(change(new Dispatch(device), true)).toBe(ENOSPC);
    expect(device.calls).toEqual([`${method} 512+512`]);
  });

  test("a flush that fails is the answer", () => {
    const device = new Shadow(SIZE);
    device.faults.set("flush", () => {
      throw new Error("torn");
    });
    expect(change(new Dispatch(device), true)).toBe(EIO);
  });
});

test("writeZeroes says whether it may leave a hole", () => {
  const device = new Shadow(SIZE);
  const dispatch = new Dispatch(device);
  dispatch.writeZeroes(0, 512, false, false);
  dispatch.writeZeroes(0, 512, false, true);
  expect(device.calls).toEqual(["writeZeroes 0+512 hole", "writeZeroes 0+512"]);
});

test("completeWrite, for bytes that are in place already, is the flush of an emulated FUA alone", () => {
  const [plain, native] = [new Shadow(SIZE), new NativeShadow(SIZE)];
  for (const device of [plain, native]) {
    expect(new Dispatch(device).completeWrite(0, 512, false)).toBe(0);
    expect(new Dispatch(device).completeWrite(0, 512, true)).toBe(0);
  }
  expect(plain.calls).toEqual(["flush"]);
  expect(native.calls).toEqual([]);
});
