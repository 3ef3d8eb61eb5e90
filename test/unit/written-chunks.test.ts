/** Goal: a RAM disk frees everything that was written and asks nothing else of the kernel, in any order of requests. */
import { describe, expect, spyOn, test } from "bun:test";
import { existsSync } from "node:fs";
import { Ramdisk, type RamdiskOptions } from "../../devices/ramdisk.ts";
import { WrittenChunks } from "../../devices/written-chunks.ts";
import { libc } from "../../src/index.ts";
import { PAGE, pageRuns } from "../../src/libc/pagemap.ts";
import { memoryUse } from "../support/memory-use.ts";
import { type RamdiskTask, STOP, WRITES } from "../support/ramdisk.worker.ts";
import * as nbd from "../support/golden.ts";
import { Peer } from "../support/peer.ts";
import { chooseSeed, pattern, Random } from "../support/random.ts";

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const CHUNK = 64 * KIB;
const LIMIT_MS = 20_000;
const HOLE = { fua: false, mayTrim: true };
const NO_HOLE = { fua: false, mayTrim: false };
const HUGE_PAGES = existsSync("/sys/kernel/mm/transparent_hugepage");

/** A range of whole units: short for the most part, and all of the disk now and then. */
function anyRange(random: Random, size: number, unit: number): readonly [offset: number, length: number] {
  const units = size / unit;
  const most = random.pick([2, 40, units]);
  const first = random.below(units);
  return [first * unit, Math.min(units - first, 1 + random.below(most)) * unit];
}

/** Allocated bytes, as the kernel counts them. Reading an unallocated range makes it count, too. */
function allocatedBytes(disk: Ramdisk): number {
  const runs = pageRuns(disk.memory.address, disk.size) ?? [];
  return runs.reduce((sum, { length, allocated }) => sum + (allocated ? length : 0), 0);
}

test("memory that is written is there, and what is trimmed or zeroed is not", () => {
  const random = new Random(chooseSeed("memory of a RAM disk"));
  const size = 4 * MIB + 3 * PAGE;
  const disk = new Ramdisk(size);
  const data = pattern(size);
  const pages = new Uint8Array(size / PAGE);
  for (let count = 0; count < 3000; count += 1) {
    const [offset, length] = anyRange(random, size, PAGE);
    const action = random.below(3);
    if (action === 0) disk.write(data.subarray(offset, offset + length), offset);
    else if (action === 1) disk.trim(offset, length);
    else disk.writeZeroes(offset, length, HOLE);
    pages.fill(action === 0 ? 1 : 0, offset / PAGE, (offset + length) / PAGE);
    const expected = pages.reduce((sum, page) => sum + page * PAGE, 0);
    expect(allocatedBytes(disk), `step ${count}`).toBe(expected);
  }
  disk.close();
});

test.each<[string, RamdiskOptions, (disk: Ramdisk) => void, number]>([
  ["nothing before it is written", {}, () => undefined, 0],
  ["all when it is populated", { populate: true }, () => undefined, 4 * MIB],
  ["none after a trim, though it was populated", { populate: true }, (disk) => disk.trim(0, disk.size), 0],
  ["none after zeroes that may trim", { populate: true }, (disk) => disk.writeZeroes(0, disk.size, HOLE), 0],
  ["all after other zeroes", { populate: true }, (disk) => disk.writeZeroes(0, disk.size, NO_HOLE), 4 * MIB],
  ["none after other zeroes, unpromised", {}, (disk) => disk.writeZeroes(0, disk.size, NO_HOLE), 0],
  ["none after zeroes in parts of pages", {}, (disk) => disk.writeZeroes(512, 1024, HOLE), 0],
  ["none after a trim of parts of pages", {}, (disk) => disk.trim(PAGE + 512, 1024), 0],
])("a disk has memory: %s", (_, options, action, bytes) => {
  const disk = new Ramdisk(4 * MIB, options);
  action(disk);
  expect(allocatedBytes(disk)).toBe(bytes);
  disk.close();
});

test("a disk that is closed has given its memory back", () => {
  const before = memoryUse().virtual;
  const disk = new Ramdisk(GIB);
  expect(memoryUse().virtual - before).toBeGreaterThanOrEqual(GIB);
  disk.close();
  expect(memoryUse().virtual - before).toBeLessThan(GIB);
});

test.skipIf(!HUGE_PAGES)(
  "memory of huge pages goes when all of it is trimmed (skipped where there are none)",
  () => {
    const random = new Random(chooseSeed("huge pages of a RAM disk"));
    const size = 9 * MIB;
    const disk = new Ramdisk(size, { hugePages: true });
    const data = pattern(size);
    for (let count = 0; count < 100; count += 1) {
      const [offset, length] = anyRange(random, size, PAGE);
      disk.write(data.subarray(0, length), offset);
      expect(allocatedBytes(disk)).toBeGreaterThanOrEqual(length);
      disk.trim(...anyRange(random, size, PAGE));
      disk.trim(0, size);
      expect(allocatedBytes(disk), `step ${count}`).toBe(0);
    }
    disk.close();
  },
);

describe("the kernel is not asked", () => {
  test("to take what was never written, or was given back", () => {
    const disk = new Ramdisk(4 * CHUNK);
    using discard = spyOn(libc.Memory.prototype, "discard");
    disk.trim(0, 4 * CHUNK);
    disk.writeZeroes(0, 4 * CHUNK, HOLE);
    disk.trim(512, 1024);
    expect(discard).not.toHaveBeenCalled();
    disk.write(pattern(512), CHUNK);
    disk.trim(0, 4 * CHUNK);
    disk.trim(0, 4 * CHUNK);
    expect(discard.mock.calls).toEqual([[CHUNK, CHUNK]]);
    disk.close();
  });

  test("but a trim of a part leaves the rest to be given back", () => {
    const disk = new Ramdisk(2 * CHUNK);
    disk.write(pattern(2 * CHUNK), 0);
    disk.trim(PAGE, 2 * CHUNK - 2 * PAGE);
    disk.trim(0, 2 * CHUNK);
    expect(allocatedBytes(disk)).toBe(0);
    disk.close();
  });

  test("what a terabyte holds that was never written", () => {
    const disk = new Ramdisk(2 ** 40);
    using runs = spyOn(libc.Memory.prototype, "runs");
    const length = 2 ** 32 - 4096;
    expect(disk.extents(2 ** 39, length)).toEqual([{ length, hole: true, zero: true }]);
    expect(runs).not.toHaveBeenCalled();
    disk.write(pattern(4096), 2 ** 39 + 2 ** 30);
    disk.extents(2 ** 39, length);
    expect(runs.mock.calls).toEqual([[2 ** 39 + 2 ** 30, CHUNK]]);
    disk.close();
  });
});

test("a write that was under way when its chunk was trimmed is told of, and zeroed", () => {
  const disk = new Ramdisk(CHUNK);
  expect(disk.memory.admit?.(0, PAGE)).toBe(0);
  disk.trim(0, CHUNK);
  // The transport moves the bytes by itself.
  new libc.Memory(CHUNK, disk.memory.address).write(pattern(PAGE), 0);
  expect(disk.extents(0, PAGE)).toEqual([{ length: PAGE, hole: false, zero: false }]);
  disk.writeZeroes(0, PAGE, HOLE);
  const bytes = new Uint8Array(PAGE);
  disk.read(bytes, 0);
  expect(bytes).toEqual(new Uint8Array(PAGE));
  disk.close();
});

test("a populated disk asks nothing before a write", () => {
  const disk = new Ramdisk(CHUNK, { populate: true });
  expect(disk.memory.admit).toBeUndefined();
  disk.close();
});

test.each(["comes after a trim", "never comes as a whole"])(
  "a payload whose rest %s is given back",
  (how) => {
    const disk = new Ramdisk(CHUNK);
    const close = spyOn(disk, "close").mockImplementation(() => undefined);
    const peer = new Peer(disk);
    const bytes = nbd.encode({ command: nbd.WRITE, cookie: 1n, offset: 0, payload: pattern(CHUNK) });
    peer.send(bytes.subarray(0, CHUNK / 2));
    peer.run();
    disk.trim(0, CHUNK);
    peer.send(bytes.subarray(CHUNK / 2, how === "comes after a trim" ? CHUNK + 28 : CHUNK));
    peer.run();
    peer[Symbol.dispose]();
    expect(allocatedBytes(disk)).toBeGreaterThan(0);
    disk.trim(0, CHUNK);
    expect(allocatedBytes(disk)).toBe(0);
    close.mockRestore();
    disk.close();
  },
);

/** A disk that a second thread also serves. */
class TwoThreads implements AsyncDisposable {
  readonly disk: Ramdisk;
  readonly #worker = new Worker(new URL("../support/ramdisk.worker.ts", import.meta.url));

  constructor(size: number) {
    this.disk = new Ramdisk(size);
  }

  /** Settles when the other thread is done. */
  send(message: RamdiskTask): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#worker.addEventListener("message", () => resolve(), { once: true });
    this.#worker.addEventListener("error", (event) => reject(new Error(event.message)), { once: true });
    this.#worker.postMessage(message);
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#worker.terminate();
    this.disk.close();
  }
}

describe("two threads", () => {
  const size = 2 * MIB;

  test("what the one writes the other gives back, over and over", async () => {
    await using threads = new TwoThreads(size);
    const { disk } = threads;
    await threads.send({ kind: "open", state: disk.shared.state });
    const random = new Random(chooseSeed("two threads of a RAM disk"));
    for (let count = 0; count < 300; count += 1) {
      const [offset, length] = anyRange(random, size, PAGE);
      await threads.send({ kind: "write", offset, length, byte: 1 + (count % 255) });
      expect(allocatedBytes(disk)).toBe(length);
      if (random.oneIn(2)) disk.trim(0, size);
      else disk.writeZeroes(0, size, HOLE);
      expect(allocatedBytes(disk)).toBe(0);
    }
  });

  test("while the one writes the other trims: zeroes take away whatever that has left", async () => {
    await using threads = new TwoThreads(size);
    const { disk } = threads;
    await threads.send({ kind: "open", state: disk.shared.state });
    const seed = chooseSeed("a race of two threads of a RAM disk");
    const random = new Random(seed + 1);
    for (let round = 0; round < 20; round += 1) {
      const control = new Int32Array(new SharedArrayBuffer(8));
      const done = threads.send({ kind: "race", seed: seed + round, length: PAGE, control });
      const deadline = performance.now() + LIMIT_MS;
      for (let count = 0; count < 500 || Atomics.load(control, WRITES) < 500; count += 1) {
        disk.trim(...anyRange(random, size, PAGE));
        if (performance.now() > deadline) throw new Error(`no 500 writes within ${LIMIT_MS} ms`);
      }
      Atomics.store(control, STOP, 1);
      await done;
      disk.writeZeroes(0, size, HOLE);
      expect(allocatedBytes(disk)).toBe(0);
    }
  });
});

/** 0 for a chunk that was never written, 1 for a written one, 2 for one that was given back. */
type State = 0 | 1 | 2;

test.each([0, 3 * PAGE])("ranges are found as by looking at every chunk, with a lead of %d", (lead) => {
  const random = new Random(chooseSeed("states of chunks"));
  const size = 700 * MIB;
  const chunks = new WrittenChunks({ size, chunkBytes: CHUNK, lead });
  const model: State[] = Array.from({ length: Math.ceil((size + lead) / CHUNK) }, () => 0);
  const startOf = (chunk: number): number => Math.max(0, chunk * CHUNK - lead);
  const endOf = (chunk: number): number => Math.min(size, (chunk + 1) * CHUNK - lead);
  const firstOf = (offset: number, end: number, isWanted: (state: State) => boolean): number => {
    const chunk = model.findIndex(
      (state, index) => startOf(index) < end && endOf(index) > offset && isWanted(state),
    );
    return chunk < 0 ? end : Math.max(offset, startOf(chunk));
  };
  for (let count = 0; count < 1500; count += 1) {
    const [offset, length] = anyRange(random, size, PAGE);
    const end = offset + length;
    // Few and short ones are written: there is something to look for.
    const isWrite = length <= 2 * MIB;
    if (isWrite) chunks.noteWrite(offset, end);
    else if (random.oneIn(20)) chunks.noteGivenBack(offset, end);
    else continue;
    for (const chunk of model.keys()) {
      if (isWrite && startOf(chunk) < end && endOf(chunk) > offset) model[chunk] = 1;
      if (!isWrite && startOf(chunk) >= offset && endOf(chunk) <= end) model[chunk] = 2;
    }
    const range = anyRange(random, size, PAGE);
    const [from, to] = [range[0], range[0] + range[1]];
    expect(chunks.firstWritten(from, to)).toBe(firstOf(from, to, (state) => state === 1));
    expect(chunks.firstNotWritten(from, to)).toBe(firstOf(from, to, (state) => state !== 1));
    expect(chunks.firstTouched(from, to)).toBe(firstOf(from, to, (state) => state !== 0));
    expect(chunks.firstUntouched(from, to)).toBe(firstOf(from, to, (state) => state === 0));
  }
  chunks.close();
});
