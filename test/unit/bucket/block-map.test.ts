/** Goal: the map of a disk in a bucket says where each block lies, and a checkpoint preserves it. */
import { describe, expect, test } from "bun:test";
import { BlockMap } from "../../../devices/bucket/block-map.ts";
import { chooseSeed, Random } from "../../support/random.ts";

const PIECE = 2 ** 16;
const LEAF = 1024;
const SLOTS = 4096;
const TIB_BLOCKS = 2 ** 28;

/** The place of each block: the number of the segment, and the slot. */
type Model = Map<number, readonly [segment: number, slot: number]>;

/** The map's runs of a range: [block, count, number of the segment or -1, slot]. */
function runsOf(map: BlockMap, first: number, end: number): number[][] {
  const runs: number[][] = [];
  for (let block = first; block < end;) {
    const count = map.find(block, end - block);
    runs.push([block, count, map.segmentNumber(map.foundIndex) ?? -1, map.foundSlot]);
    block += count;
  }
  return runs;
}

/** The same runs, derived from single blocks. */
function modelRuns(model: Model, first: number, end: number): number[][] {
  const runs: number[][] = [];
  for (let block = first; block < end; block += 1) {
    const [segment, slot] = model.get(block) ?? [-1, 0];
    const run = runs.at(-1);
    const [, count = 0, lastSegment, lastSlot = 0] = run ?? [];
    const goesOn = segment === lastSegment && (segment < 0 || slot === lastSlot + count);
    if (run !== undefined && goesOn) run[1] = count + 1;
    else runs.push([block, 1, segment, slot]);
  }
  return runs;
}

function liveOf(model: Model): Map<number, number> {
  const live = new Map<number, number>();
  for (const [segment] of model.values()) live.set(segment, 1 + (live.get(segment) ?? 0));
  return live;
}

/** The numbers of the segments that contain blocks. */
function liveIn(map: BlockMap): Map<number, number> {
  const all = [...map.segments()].map(
    (index) => [map.segmentNumber(index) ?? -1, map.liveIn(index)] as const,
  );
  return new Map(all.filter(([, live]) => live > 0));
}

function reloaded(map: BlockMap): BlockMap {
  const copy = new BlockMap(map.blocks);
  // The indexes differ from those in the map.
  copy.addSegment(10_000_000);
  for (const page of map.pages()) copy.load(page);
  return copy;
}

/** A disk with a model, used almost only around the border of two pieces. */
class Disk {
  readonly first = PIECE - 3 * LEAF;
  readonly blocks = PIECE + 3 * LEAF + 5;
  readonly map = new BlockMap(this.blocks);
  readonly model: Model = new Map();
  #number = 0;

  constructor(readonly random: Random) {}

  range(): readonly [block: number, count: number] {
    const block = this.first + this.random.below(this.blocks - this.first);
    const most = this.random.pick([1, 8, 300, SLOTS]);
    return [block, 1 + this.random.below(Math.min(most, this.blocks - block))];
  }

  /** A segment with a few written ranges. */
  write(): void {
    const number = (this.#number += 1 + this.random.below(3));
    const index = this.map.addSegment(number);
    for (let slot = this.random.pick([0, 3000]); slot < SLOTS && !this.random.oneIn(5);) {
      const [block, most] = this.range();
      const count = Math.min(most, SLOTS - slot);
      this.map.set(block, count, index, slot);
      for (let at = 0; at < count; at += 1) this.model.set(block + at, [number, slot + at]);
      slot += count + this.random.pick([0, 0, 7]);
    }
  }

  clear(): void {
    const [block, count] = this.range();
    this.map.clear(block, count);
    for (let at = block; at < block + count; at += 1) this.model.delete(at);
  }

  removeEmpty(): void {
    for (const index of this.map.segments()) if (this.map.liveIn(index) === 0) this.map.removeSegment(index);
  }

  check(map: BlockMap): void {
    expect(liveIn(map)).toEqual(liveOf(this.model));
    expect(map.liveBlocks).toBe(this.model.size);
    expect(runsOf(map, this.first, this.blocks)).toEqual(modelRuns(this.model, this.first, this.blocks));
    expect(map.find(0, this.blocks)).toBeGreaterThanOrEqual(this.first);
  }
}

test("blocks lie where they were put last, as in a table of single blocks, before and after a checkpoint", () => {
  const disk = new Disk(new Random(chooseSeed("the map of a bucket's blocks")));
  for (let step = 0; step < 600; step += 1) {
    const action = disk.random.below(4);
    if (action < 2) disk.write();
    else if (action === 2) disk.clear();
    else disk.removeEmpty();
    const [block, count] = disk.range();
    expect(runsOf(disk.map, block, block + count)).toEqual(modelRuns(disk.model, block, block + count));
    if (step % 20 === 0) disk.check(disk.map);
    if (step % 100 === 0) disk.check(reloaded(disk.map));
  }
  disk.map.clear(0, disk.blocks);
  disk.removeEmpty();
  expect([...disk.map.segments()]).toEqual([]);
  expect([...disk.map.pages()]).toEqual([]);
}, 60_000);

test("a run ends with its segment, though the next index and slot 0 follow", () => {
  const map = new BlockMap(100);
  const [first, second] = [map.addSegment(7), map.addSegment(8)];
  map.set(10, 2, first, SLOTS - 2);
  map.set(12, 3, second, 0);
  expect(runsOf(map, 0, 100)).toEqual([
    [0, 10, -1, 0],
    [10, 2, 7, SLOTS - 2],
    [12, 3, 8, 0],
    [15, 85, -1, 0],
  ]);
});

test("the last of all segments has its last slot, and one more is refused", () => {
  const map = new BlockMap(2);
  let last = 0;
  for (let number = 0; number < 2 ** 20 - 1; number += 1) last = map.addSegment(number);
  map.set(1, 1, last, SLOTS - 1);
  expect(runsOf(map, 0, 2)).toEqual([
    [0, 1, -1, 0],
    [1, 1, 2 ** 20 - 2, SLOTS - 1],
  ]);
  expect(() => map.addSegment(2 ** 20)).toThrow(RangeError);
  map.removeSegment(5);
  expect(map.addSegment(2 ** 20)).toBe(5);
}, 60_000);

describe("memory", () => {
  test("an empty disk takes next to none, and a trim of a full one gives it back", () => {
    const map = new BlockMap(64 * TIB_BLOCKS);
    const empty = map.memoryBytes;
    expect(empty).toBeLessThan(4 * 2 ** 20);
    const index = map.addSegment(1);
    // One block in each leaf of 32 pieces.
    for (let block = 0; block < 32 * PIECE; block += LEAF) map.set(block, 1, index, block / LEAF);
    expect(map.memoryBytes - empty).toBeGreaterThan(8 * 2 ** 20);
    map.clear(0, map.blocks);
    map.removeSegment(index);
    expect(map.memoryBytes - empty).toBeLessThanOrEqual(2 ** 20 + 1024);
    expect(map.find(0, map.blocks)).toBe(map.blocks);
  });

  test("the page of a piece that was written in order is small, and one of random places has less than 512 KiB", () => {
    const map = new BlockMap(2 * PIECE);
    const random = new Random(chooseSeed("pages of a map"));
    const indexes = Array.from({ length: 3000 }, (_, number) => map.addSegment(number));
    for (let at = 0; at < PIECE; at += SLOTS) map.set(at, SLOTS, at / SLOTS, 0);
    for (let at = 0; at < PIECE; at += 1) map.set(PIECE + at, 1, random.pick(indexes), random.below(SLOTS));
    const [sequential, scattered] = [...map.pages()].map(({ length }) => length);
    expect(sequential).toBeLessThan(1000);
    expect(scattered).toBeLessThan(512 * 1024);
  });
});

describe("a page is refused", () => {
  const map = new BlockMap(PIECE);
  map.set(5, 100, map.addSegment(3), 17);
  const [page = new Uint8Array()] = map.pages();

  test.each<[string, Uint8Array, number, RegExp]>([
    ["without a header", page.subarray(0, 39), PIECE, /not a page/],
    ["that is something else", new Uint8Array(100), PIECE, /not a page/],
    ["that is too long", Uint8Array.of(...page, 0), PIECE, /checksum/],
    ["that was cut off", page.subarray(0, -1), PIECE, /checksum/],
    ["of a larger disk", page, 100, /beyond the end/],
    ["of a newer format", page.with(8, 2), PIECE, /newer version/],
  ])("%s", (_, bytes, blocks, message) => {
    expect(() => new BlockMap(blocks).load(bytes)).toThrow(message);
  });

  test("with any byte changed, and leaves the map as it was", () => {
    const other = new BlockMap(PIECE);
    for (const [at, byte] of page.entries()) expect(() => other.load(page.with(at, byte ^ 4))).toThrow();
    expect(other.find(0, PIECE)).toBe(PIECE);
    other.load(page);
    expect(runsOf(other, 0, 200)).toEqual(runsOf(map, 0, 200));
  });
});
