/** Goal: memory is granted while there is enough, with few checks of the system, and refused when it is short. */
import { expect, test } from "bun:test";
import { Dispatch } from "../../src/dispatch.ts";
import type { MemoryLimit } from "../../src/libc/cgroup.ts";
import { memoryInfo, type MemoryInfo } from "../../src/libc/meminfo.ts";
import {
  MemoryGuard,
  type MemoryGuardOptions,
  type Spare,
  spareForFiles,
  spareMemory,
} from "../../src/libc/memory-guard.ts";
import { errno } from "../../src/uapi/errno.ts";

const MIB = 2 ** 20;
const USED_UP = "the system's memory is used up";
const REFUSING = `${USED_UP}: writes fail until some is free, or is trimmed`;
const AGAIN = "there is memory again: writes succeed";

function info(totalMib: number, availableMib: number, swapFreeMib = 0): MemoryInfo {
  return {
    total: totalMib * MIB,
    available: availableMib * MIB,
    swapTotal: 0,
    swapFree: swapFreeMib * MIB,
    commitLimit: 0,
    committed: 0,
  };
}

const group = (name: string, limitMib: number, roomMib: number): MemoryLimit => ({
  group: name,
  limit: limitMib * MIB,
  room: roomMib * MIB,
});

test.each<[MemoryInfo, MemoryLimit[], number, string]>([
  [info(384, 100), [], 76, USED_UP],
  [info(384, 20), [], -4, USED_UP],
  [info(384, 20, 1000), [], 996, USED_UP],
  [info(4096, 1000), [], 744, USED_UP],
  [info(65_536, 10_000), [], 9488, USED_UP],
  [info(4096, 1000), [group("/a", 2048, 2000), group("/b", 2048, 1900)], 744, USED_UP],
  [info(4096, 1000), [group("/a", 200, 150)], 126, "the memory limit of control group /a is reached"],
  [
    info(4096, 1000),
    [group("/a", 3200, 500), group("/a/b", 3200, 400)],
    200,
    "the memory limit of control group /a/b is reached",
  ],
])("a sixteenth is kept, from 24 to 512 MiB: %o %o", (memory, limits, spareMib, cause) => {
  expect(spareMemory(memory, limits)).toEqual({ bytes: spareMib * MIB, cause });
});

const PROMISED = "the memory that the system promises with vm.overcommit_memory=2 is used up";
const SPARE = { bytes: 76 * MIB, cause: USED_UP };

test.each<[string, number, Spare]>([
  ["nothing is counted", Number.POSITIVE_INFINITY, SPARE],
  ["much can be promised", 200 * MIB, { ...SPARE, isContested: true }],
  ["little can be promised", 40 * MIB, { bytes: 16 * MIB, cause: PROMISED, isContested: true }],
])("for files in memory: %s", (_, room, expected) => {
  expect(spareForFiles(info(384, 100), room, SPARE)).toEqual(expected);
});

/** A system with 276 MiB to spare, and an area; counts the checks of the system. */
class System {
  spareBytes = 276 * MIB;
  looks = 0;
  /** Whether the area's pages are allocated. */
  allocated = false;
  /** Allocates memory when it is admitted, as the guard does when memory is low. */
  readonly memory = {
    isFile: false,
    runs: (_: number, length: number) => [{ length, allocated: this.allocated }],
    populate: (_: number, length: number): number => {
      this.spareBytes -= length;
      return 0;
    },
  };
  readonly lines: string[] = [];
  #written = 0;

  readonly spare = (): Spare => {
    this.looks += 1;
    return { bytes: this.spareBytes, cause: USED_UP };
  };

  guard(options: MemoryGuardOptions = {}): MemoryGuard {
    const log = (line: string): void => void this.lines.push(line);
    return new MemoryGuard(this.memory, { spare: this.spare, log, ...options });
  }

  /** Writes new blocks by turns until one is refused. Returns the bytes written. */
  fillUp(guards: readonly MemoryGuard[], blockBytes: number): number {
    for (let written = 0; written < 2 ** 30; written += blockBytes) {
      const guard = guards[(written / blockBytes) % guards.length];
      const before = this.spareBytes;
      if (guard?.admit(this.#written, blockBytes) !== 0) return written;
      // Memory that was not allocated on admission is taken now, with the data.
      this.spareBytes = before - blockBytes;
      this.#written += blockBytes;
    }
    throw new Error("nothing was refused");
  }
}

test.each([
  [4096, 1],
  [131_072, 1],
  [3 * MIB, 1],
  [4096, 4],
  [131_072, 4],
])("blocks of %d bytes on %d threads are taken up to the reserve", (bytes, threads) => {
  const system = new System();
  const first = system.guard();
  const others = Array.from({ length: threads - 1 }, () => system.guard({ state: first.state }));
  const written = system.fillUp([first, ...others], bytes);
  expect(written).toBeGreaterThan(276 * MIB - 2 * bytes);
  // Of the reserve 2 MiB may be taken between two looks.
  expect(written).toBeLessThanOrEqual(278 * MIB);
  expect(system.lines).toEqual([REFUSING]);
});

test("each page that a write touches is counted, whole, and the larger ones of a disk of such", () => {
  for (const [granule, stride] of [
    [4096, 4096],
    [2 * MIB, 2 * MIB],
  ] as const) {
    const system = new System();
    system.spareBytes = 150 * MIB;
    const guard = system.guard({ granule });
    let admitted = 0;
    // 512 bytes of each: what it really takes is the whole.
    system.memory.populate = () => {
      system.spareBytes -= stride;
      return 0;
    };
    while (guard.admit(admitted * stride, 512) === 0) admitted += 1;
    expect(admitted * stride).toBeGreaterThanOrEqual(148 * MIB);
    expect(admitted * stride).toBeLessThanOrEqual(152 * MIB);
  }
});

test("the system is looked at seldom: while there is memory, and when it is used up", () => {
  const system = new System();
  system.spareBytes = 2 ** 40;
  const guard = system.guard();
  for (let block = 0; block < 50_000; block += 1) expect(guard.admit(block * 4096, 4096)).toBe(0);
  expect(system.looks).toBeLessThan(10);

  system.spareBytes = 0;
  system.fillUp([guard], 4096);
  system.looks = 0;
  const started = performance.now();
  for (let count = 0; count < 2000; count += 1) {
    system.allocated = count % 2 === 1;
    expect(guard.admit(0, 4096)).toBe(system.allocated ? 0 : errno.ENOSPC);
  }
  // Not more often than every 20 ms.
  expect(system.looks).toBeLessThanOrEqual((performance.now() - started) / 20 + 1);
  expect(system.lines).toEqual([REFUSING]);
});

test("what was given back can be written at once, and what is free elsewhere in a moment", async () => {
  const system = new System();
  const guard = system.guard();
  system.fillUp([guard], MIB);
  system.spareBytes += 10 * MIB;
  guard.givenBack();
  expect(guard.admit(0, MIB)).toBe(0);
  expect(system.lines).toEqual([REFUSING, AGAIN]);

  system.fillUp([guard], MIB);
  system.spareBytes += 10 * MIB;
  const deadline = performance.now() + 10_000;
  while (guard.admit(0, MIB) !== 0 && performance.now() < deadline) await Bun.sleep(1);
  expect(system.lines).toEqual([REFUSING, AGAIN, REFUSING, AGAIN]);
});

test("a write that is longer than what is left is refused alone", () => {
  const system = new System();
  system.spareBytes = 16 * MIB;
  const guard = system.guard();
  for (let count = 0; count < 100; count += 1) {
    expect(guard.admit(0, 32 * MIB)).toBe(errno.ENOSPC);
    expect(guard.admit(0, 4096)).toBe(0);
  }
  expect(system.lines).toEqual([REFUSING]);
});

test("what is admitted is allocated at once when memory is low; what the kernel refuses then, too", () => {
  const system = new System();
  const populated: number[][] = [];
  let result = -errno.EINVAL;
  system.memory.populate = (...range: number[]) => {
    populated.push(range);
    return result;
  };
  system.spareBytes = 192 * MIB - 1;
  const guard = system.guard();
  // Kernels before Linux 5.14.
  expect(guard.admit(4096, 8192)).toBe(0);
  result = -errno.ENOMEM;
  expect(guard.admit(0, 512)).toBe(errno.ENOSPC);
  expect(populated).toEqual([
    [4096, 8192],
    [0, 512],
  ]);
});

test("what another process may be promised meanwhile is allocated at once, and what is refused is not written", () => {
  const system = new System();
  system.spareBytes = 2 ** 40;
  const spare = (): Spare => ({ bytes: system.spareBytes, cause: PROMISED, isContested: true });
  const guard = system.guard({ spare });
  expect(guard.admit(0, 4096)).toBe(0);
  expect(system.spareBytes).toBe(2 ** 40 - 4096);
  // As the kernel says that it would be SIGBUS.
  system.memory.populate = () => -errno.EFAULT;
  expect(guard.admit(4096, 4096)).toBe(errno.ENOSPC);
  expect(guard.cause).toBe(PROMISED);
});

test("without /proc nothing is refused", () => {
  const guard = new System().guard({ spare: () => undefined });
  for (let count = 0; count < 100; count += 1) expect(guard.admit(0, 2 ** 32)).toBe(0);
});

test("the system's own numbers are read", async () => {
  const text = await Bun.file("/proc/meminfo").text();
  expect(memoryInfo()?.total).toBe(Number(/^MemTotal:\s+(\d+) kB$/m.exec(text)?.[1]) * 1024);
  expect(memoryInfo()?.available).toBeGreaterThan(0);
});

test("a write that memory has no room for is answered with the errno; a trim and a read are not asked", () => {
  const asked: number[][] = [];
  const memory = {
    address: 0,
    admit(...range: number[]): number {
      asked.push(range);
      return 28;
    },
  };
  const device = { size: 8192, memory, read() {}, write() {}, trim() {}, writeZeroes() {} };
  const dispatch = new Dispatch(device);
  expect(dispatch.checkWrite(512, 1024, false)).toBe(28);
  expect(dispatch.checkWrite(512, 8192, false)).toBe(28);
  expect(dispatch.checkRead(0, 512)).toBe(0);
  expect(dispatch.trim(0, 512, false)).toBe(0);
  expect(dispatch.writeZeroes(0, 512, false, true)).toBe(0);
  // A write out of range never reaches the guard.
  expect(asked).toEqual([[512, 1024]]);
});
