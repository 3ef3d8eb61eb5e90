/**
 * A program that behaves as if pages had the size given as its argument, in bytes: a multiple of this system's, so that
 * everything works here as well. It reports what a disk and its guard do with such pages, as JSON.
 */
import { libc } from "../../src/libc/library.ts";

const page = Number(process.argv[2]);
Object.assign(libc, { getpagesize: () => page });
// What they know of pages they ask for once, when they are loaded.
const { Memory } = await import("../../src/libc/memory.ts");
const { MemoryGuard } = await import("../../src/libc/memory-guard.ts");
const { HUGE_PAGE } = await import("../../src/libc/pagemap.ts");
const { descriptorRange } = await import("../../src/ublk/queue/descriptors.ts");

/** Bytes of pages that madvise(2) was told to give back, and the alignment of the worst call. */
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

/** The kernel aligns an area to its own pages: this one begins with one of ours. */
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

/** What a write of one byte is charged as, in bytes: units of 4096 that are taken from what is left. */
const guard = new MemoryGuard(memory, { spare: () => ({ bytes: 2 ** 40, cause: "" }) });
guard.admit(0, 1);
const before = guard.state[0] ?? 0;
guard.admit(page - 1, 2);
const charged = (before - (guard.state[0] ?? 0)) * 4096;
console.log(
  JSON.stringify({
    wrong,
    unaligned,
    gaveBack: given > 0,
    charged,
    HUGE_PAGE,
    queue: descriptorRange(1, 129),
  }),
);
