/** Goal: for sequential reads nearly all blocks are fetched beforehand; for others it costs almost nothing. */
import { expect, test } from "bun:test";
import { ReadAhead } from "../../../devices/bucket/read-ahead.ts";
import { chooseSeed, Random } from "../../support/random.ts";

const BLOCKS = 2 ** 24;
const MAX = 4096;

interface Read {
  readonly block: number;
  readonly count: number;
}

interface Outcome {
  /** The number of blocks read, and how many of them were fetched ahead. */
  readonly read: number;
  readonly found: number;
  /** The number of blocks fetched ahead. */
  readonly fetched: number;
  /** The maximum distance between a block fetched ahead and the read that caused it. */
  readonly farthest: number;
}

/** Makes the reads. Fails if a block is fetched twice, or after the end of the disk. */
function follow(reads: readonly Read[], blocks = BLOCKS): Outcome {
  const ahead = new ReadAhead({ blocks, aheadMax: MAX });
  const fetched = new Set<number>();
  let [read, found, farthest] = [0, 0, 0];
  for (const { block, count } of reads) {
    for (let at = block; at < block + count; at += 1) if (fetched.has(at)) found += 1;
    read += count;
    const more = ahead.note(block, count);
    for (let at = ahead.aheadBlock; at < ahead.aheadBlock + more; at += 1) {
      expect(fetched.has(at) || at >= blocks).toBe(false);
      fetched.add(at);
      farthest = Math.max(farthest, at - block - count + 1);
    }
  }
  return { read, found, fetched: fetched.size, farthest };
}

/** Reads in order, of `count` blocks each. */
function inOrder(first: number, reads: number, count: number): Read[] {
  return Array.from({ length: reads }, (_, index) => ({ block: first + index * count, count }));
}

/** Interleaves several readers: a part of each in turn. */
function mixed(readers: readonly Read[][]): Read[] {
  return (readers[0] ?? []).flatMap((_, index) => readers.flatMap((reads) => reads[index] ?? []));
}

/** Each read overtakes up to `most` others. */
function shuffled(reads: readonly Read[], most: number, random: Random): Read[] {
  const places = reads.map((read, index) => ({ read, place: index + random.below(most + 1) }));
  return places.toSorted((a, b) => a.place - b.place).map(({ read }) => read);
}

const random = new Random(chooseSeed("reads that are foreseen"));

test.each<[string, Read[]]>([
  ["one block at a time", inOrder(1000, 20_000, 1)],
  ["128 KiB at a time", inOrder(0, 2000, 32)],
  ["more than is fetched at first", inOrder(77, 200, 256)],
  ["eight readers in turn", mixed(Array.from({ length: 8 }, (_, at) => inOrder(at * 100_000, 3000, 8)))],
  ["requests that overtake each other", shuffled(inOrder(5000, 5000, 8), 6, random)],
])("reads in order are foreseen: %s", (_, reads) => {
  const { read, found, fetched, farthest } = follow(reads);
  expect(found / read).toBeGreaterThan(0.98);
  // Only the blocks fetched ahead when a reader ends are wasted.
  expect(fetched - found).toBeLessThanOrEqual(8 * MAX);
  expect(farthest).toBeLessThanOrEqual(MAX);
});

test("a reader gets more the longer it goes on", () => {
  const ahead = new ReadAhead({ blocks: BLOCKS, aheadMax: 256 });
  const fetches = inOrder(0, 40, 16).map(({ block, count }) => ahead.note(block, count));
  expect(fetches.filter((count) => count > 0)).toEqual([64, 80, 160, 64, 64, 64, 64, 64, 64, 64, 64]);
});

test("reads at random fetch little, and the end of the disk is the end", () => {
  const scattered = Array.from({ length: 20_000 }, () => ({ block: random.below(BLOCKS - 1), count: 1 }));
  expect(follow(scattered).fetched).toBeLessThan(4000);
  expect(follow(inOrder(0, 1000, 10), 10_000)).toMatchObject({ read: 10_000, fetched: 10_000 - 20 });
});
