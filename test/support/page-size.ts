/**
 * A program that behaves as if pages had the size given as its argument, in bytes: a multiple of this system's, so that
 * everything works here as well. It reports as JSON what a disk and its guard do with such pages.
 */
import { fstatSync } from "node:fs";
import { libc } from "../../src/libc/library.ts";

const page = Number(process.argv[2]);
Object.assign(libc, { getpagesize: () => page });
// These modules ask for the page size once, when they are loaded.
const { Memory, memoryFile } = await import("../../src/libc/memory.ts");
const { MemoryGuard } = await import("../../src/libc/memory-guard.ts");
const { HUGE_PAGE } = await import("../../src/libc/pagemap.ts");
const { descriptorRange } = await import("../../src/ublk/queue/descriptors.ts");

/** Bytes that madvise(2) was told to give back, and the alignment of the worst call. */
let given = 0;
let unaligned = 0;
const { madvise } = libc;
Object.assign(libc, {
  madvise: (address: number, length: number, advice: number) => {
    given += length;
    unaligned += (address % page) + (length % page);
    return madvise(address, length, advice);
  },
});

/** The kernel aligns an area only to its own pages, but this one must begin with one of ours. */
const area = new Memory(9 * page);
const start = Math.ceil(area.address / page) * page;
const memory = new Memory(8 * page, start);
const bytes = memory.bytes();
const wrong: string[] = [];
given = 0;
unaligned = 0;
const ends = [0, 1, 512, page - 512, page, page + 4096, 3 * page - 1, 3 * page, 8 * page];
for (const from of ends) {
  for (const to of ends.filter((end) => end > from)) {
    bytes.fill(7);
    memory.discard(from, to - from);
    const isRight = bytes.every((byte, at) => byte === (at >= from && at < to ? 0 : 7));
    if (!isRight) wrong.push(`${from} to ${to}`);
  }
}

/** What the guard charges for a write of one byte, in bytes: it counts units of 4096. */
const guard = new MemoryGuard(memory, { spare: () => ({ bytes: 2 ** 40, cause: "" }) });
guard.admit(0, 1);
const before = guard.state[0] ?? 0;
guard.admit(page - 1, 2);
const charged = (before - (guard.state[0] ?? 0)) * 4096;
// The kernel aligns the next area to its own pages.
Object.assign(libc, { madvise });

/** mincore(2) of a kernel with such pages: a page has memory if all parts of it have. */
const { mincore } = libc;
const parts = new Uint8Array(new ArrayBuffer(64 * 1024));
Object.assign(libc, {
  mincore: (address: number, length: number, vector: Uint8Array) => {
    const status = mincore(address, length, parts);
    const each = page / 4096;
    for (let at = 0; at < length / page; at += 1)
      vector[at] = parts.subarray(at * each, (at + 1) * each).every((part) => (part & 1) === 1) ? 1 : 0;
    return status;
  },
});

/** Whether the chunk of a file in memory is known to be complete after each step, and how much memory reading takes. */
const chunk = 64 * 1024;
const file = memoryFile(4 * chunk);
const shared = new Memory(4 * chunk, undefined, file);
const taken = (): number => fstatSync(file).blocks * 512;
function wholeAfter(step: () => void, expected: (at: number) => number): boolean {
  step();
  const already = taken();
  const read = new Uint8Array(chunk).fill(1);
  shared.read(read, chunk);
  if (!read.every((byte, at) => byte === expected(at))) wrong.push("a file in memory");
  if (taken() !== already) wrong.push("reading a file in memory takes some");
  return shared.residence?.[1] === 1;
}
const whole = [
  wholeAfter(
    () => shared.write(new Uint8Array(page).fill(7), chunk),
    (at) => (at < page ? 7 : 0),
  ),
  wholeAfter(
    () => shared.write(new Uint8Array(chunk).fill(7), chunk),
    () => 7,
  ),
  wholeAfter(
    () => shared.discard(chunk, page),
    (at) => (at < page ? 0 : 7),
  ),
];
console.log(
  JSON.stringify({
    wrong,
    unaligned,
    gaveBack: given > 0,
    charged,
    whole,
    HUGE_PAGE,
    queue: descriptorRange(1, 129),
  }),
);
