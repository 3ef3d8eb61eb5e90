/** Goal: memory is taken as long as there is some, with few looks at the system, and not when there is little. */
import { expect, test } from "bun:test";
import { MemoryGuard, spareMemory } from "../../devices/memory-guard.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { memoryInfo, type MemoryInfo } from "../../src/libc/meminfo.ts";

const MIB = 2 ** 20;

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

test.each([
  [info(384, 100), 76],
  [info(384, 20), -4],
  [info(384, 20, 1000), 996],
  [info(4096, 1000), 744],
  [info(65_536, 10_000), 9488],
])("a sixteenth is kept, from 24 to 512 MiB: %o", (memory, spareMib) => {
  expect(spareMemory(memory) / MIB).toBe(spareMib);
});

/** A system of 384 MiB of which `used` are taken; counts the looks at it. */
class System {
  used = 0;
  looks = 0;

  readonly read = (): MemoryInfo => {
    this.looks += 1;
    return info(384, 300 - this.used / MIB);
  };
}

/** Writes new blocks until one is refused. Returns the bytes written. */
function fill(system: System, guard: MemoryGuard, blockBytes: number): number {
  for (let written = 0; written < 2 ** 30; written += blockBytes) {
    if (!guard.allows(blockBytes)) return written;
    system.used += blockBytes;
  }
  throw new Error("nothing was refused");
}

test.each([4096, 131_072, 3 * MIB])(
  "blocks of %d bytes are taken up to the reserve, and no further",
  (bytes) => {
    const system = new System();
    const written = fill(system, new MemoryGuard(system.read), bytes);
    expect(written).toBeGreaterThan(276 * MIB - 2 * bytes);
    expect(written).toBeLessThanOrEqual(276 * MIB);
  },
);

test("the system is looked at seldom while there is memory", () => {
  const system = new System();
  const guard = new MemoryGuard(system.read);
  for (let block = 0; block < 50_000; block += 1) expect(guard.allows(4096)).toBe(true);
  expect(system.looks).toBeLessThan(10);
});

test("once refused, every write is looked at, and one goes through when there is memory again", () => {
  const system = new System();
  const guard = new MemoryGuard(system.read);
  fill(system, guard, MIB);
  expect([guard.allows(MIB), guard.allows(MIB)]).toEqual([false, false]);
  system.used -= 10 * MIB;
  expect(guard.allows(MIB)).toBe(true);
});

test("without /proc nothing is refused", () => {
  const guard = new MemoryGuard(() => undefined);
  for (let count = 0; count < 100; count += 1) expect(guard.allows(2 ** 32)).toBe(true);
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
  // What is out of range is nobody's to admit.
  expect(asked).toEqual([[512, 1024]]);
});
