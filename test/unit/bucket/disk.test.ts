/** A disk on a bucket in memory: its contents after any end of its writer, and who may write to it. */
import { describe, expect, test } from "bun:test";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { ChunkReader } from "../../../devices/bucket/chunk-reader.ts";
import {
  blocksForSegment,
  checkpointKey,
  decodeHead,
  encodeSegment,
  ENTRY,
  logKey,
  newName,
} from "../../../devices/bucket/format.ts";
import { CHUNK_BYTES, pack, unpack } from "../../../devices/bucket/packing.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { encodeRecord, readRoot } from "../../../devices/bucket/records.ts";
import { Sources } from "../../../devices/bucket/sources.ts";
import { checkDevice } from "../../../src/index.ts";
import { ALL_FAULTS, Bucket, Client, type Faults, keysOf, NO_FAULTS } from "../../support/bucket.ts";
import {
  BLOCKS,
  blocksOf,
  contentsOf,
  expectState,
  made,
  Model,
  OPTIONS,
  work,
} from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { overwrite } from "../../support/bucket-overwriting.ts";
import { chooseSeed, pattern, Random } from "../../support/random.ts";
import { until } from "../../support/shell.ts";

test("what was written is there, before and after it is opened again", async () => {
  const seed = chooseSeed("bucket disk");
  for (let round = 0; round < 10; round += 1) {
    const bucket = await made();
    const model = new Model();
    const random = new Random(seed + round);
    for (let life = 0; life < 5; life += 1) {
      const disk = await openBucket(new Client(bucket, ALL_FAULTS, seed + round * 10 + life), OPTIONS);
      await work(disk, model, random, 60);
      expect(await contentsOf(disk)).toEqual(model.states[model.last] ?? []);
      await disk.close();
      const reader = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
      expect(await contentsOf(reader)).toEqual(model.states[model.last] ?? []);
    }
  }
}, 60_000);

describe("a writer that dies at any of its operations", () => {
  const CASES: readonly (readonly [string, Faults])[] = [
    ["on a good network", NO_FAULTS],
    ["on a bad network", ALL_FAULTS],
  ];
  test.each(CASES)(
    "leaves a prefix with all that was flushed, %s",
    async (_, faults) => {
      const seed = chooseSeed("bucket deaths");
      const stride = faults === NO_FAULTS ? 1 : 3;
      let wasAlive = false;
      for (let operation = 0; !wasAlive; operation += stride)
        for (const isApplied of [false, true]) {
          const bucket = await made();
          const model = new Model();
          const client = new Client(bucket, faults, seed + operation);
          client.death = { operation, isApplied };
          const life = (async () => {
            const disk = await openBucket(client, OPTIONS);
            await work(disk, model, new Random(seed), 50);
            await disk.close();
          })();
          await Promise.race([life, client.died]);
          wasAlive = !client.isDead;
          const next = await openBucket(new Client(bucket, faults, seed - operation), OPTIONS);
          const state = await expectState(next, model, `seed ${seed}, operation ${operation}`);
          // The disk continues from there, whatever arrives late from the dead client.
          const after = new Model();
          after.states[0] = model.states[state] ?? [];
          await work(next, after, new Random(seed + 1), 20);
          await next.close();
          const last = await openBucket(new Client(bucket), OPTIONS);
          await expectState(last, after, `seed ${seed}, after operation ${operation}`);
          expect(await contentsOf(last)).toEqual(after.states[after.last] ?? []);
          await last.close();
        }
    },
    60_000,
  );
});

test("of two writers the one that came later has the disk, and the other one fails and harms nothing", async () => {
  const seed = chooseSeed("bucket writers");
  for (let round = 0; round < 10; round += 1) {
    const bucket = await made();
    const random = new Random(seed + round);
    const model = new Model();
    const first = await openBucket(new Client(bucket, ALL_FAULTS, seed + round), OPTIONS);
    // It works until it fails, while the other one opens the disk, and notes which flushes were answered.
    const ended = work(first, model, random, 1_000_000).then(
      () => "never failed",
      (error: unknown) => String(error),
    );
    while (model.last < 20) await new Promise((resolve) => setImmediate(resolve));
    const second = await openBucket(new Client(bucket, ALL_FAULTS, seed - round), OPTIONS);
    const state = await expectState(second, model, `seed ${seed}, round ${round}`);
    const after = new Model();
    after.states[0] = model.states[state] ?? [];
    await work(second, after, new Random(seed), 30);
    await second.flush?.();
    expect(await ended).toMatch(/was taken over by process \d+ on /);
    expect(model.flushed).toBeLessThanOrEqual(state);
    expect(() => first.read(new Uint8Array(BLOCK_BYTES), 0)).toThrow("was taken over by");
    await expect(first.close()).rejects.toThrow("was taken over by");
    expect(await contentsOf(second)).toEqual(after.states[after.last] ?? []);
    await second.close();
    const last = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
    expect(await contentsOf(last)).toEqual(after.states[after.last] ?? []);
  }
}, 60_000);

test("segments of which little is live are emptied and removed", async () => {
  const bucket = await made();
  const disk = await openBucket(new Client(bucket), OPTIONS);
  const expected = Array.from({ length: BLOCKS }, () => 0);
  const COLD = 48;
  const segments = (): number => keysOf(bucket, "log/").length;
  let step = 0;
  const write = async (block: number): Promise<void> => {
    step += 1;
    expected[block] = step;
    await disk.write?.(blocksOf(step, 1), block * BLOCK_BYTES);
  };
  const writeSegment = async (first: number): Promise<void> => {
    await write(first);
    for (let block = COLD + 1; block < COLD + 8; block += 1) await write(block);
    await disk.flush?.();
  };
  // One block of each segment stays, the others are overwritten repeatedly.
  for (let cold = 0; cold < COLD; cold += 1) await writeSegment(cold);
  // Two claims, 56 live blocks in segments of 8, and the writes between two checkpoints.
  await until("most segments are gone", async () => {
    await writeSegment(COLD);
    return segments() < 2 + COLD / 2;
  });
  expect(await contentsOf(disk)).toEqual(expected);
  await disk.close();
  expect(keysOf(bucket, "map/").length).toBe(1);
  const last = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  expect(await contentsOf(last)).toEqual(expected);
}, 60_000);

test("small segments do not put a checkpoint off for ever, however large the one before it was", async () => {
  const bucket = await made();
  const interval = { segments: 3, times: 1_000_000, segmentsMax: 20 };
  const disk = await openBucket(new Client(bucket), { ...OPTIONS, interval });
  const segments = (): number => keysOf(bucket, "log/").length;
  for (let step = 1; step <= 300; step += 1) {
    await disk.write?.(blocksOf(step, 1), 0);
    await disk.flush?.();
  }
  // Two claims, and the writes until a checkpoint has been made and has swept.
  await until("most segments are gone", () => segments() < 100);
  await disk.close();
});

test("the root of a large disk's checkpoint is read, and a disk that has a larger one is not made", async () => {
  const bucket = new Bucket();
  const pages = Array.from({ length: 100_000 }, (_, page) => `map/000000000001.${"a".repeat(32)}/${page}`);
  const state = { number: 1, turns: [], pages, segments: [], time: 0 };
  bucket.put(checkpointKey(1), encodeRecord({ ...state, through: 1, oldest: 1, keepMs: 0 }));
  expect((await readRoot(new Client(bucket), 1))?.pages.length).toBe(pages.length);
  bucket.objects.clear();
  const large = { ...OPTIONS, create: 2 ** 48 + BLOCK_BYTES };
  expect(await userFailure(openBucket(new Client(bucket), large))).toContain("at most 256T");
  expect(bucket.objects.size).toBe(0);
});

/** Notes how many objects are being read at the same time. */
class Watched extends Client {
  readingMax = 0;
  #reading = 0;

  override async get(key: string, start: number, length: number): Promise<Uint8Array | undefined> {
    this.#reading += 1;
    this.readingMax = Math.max(this.readingMax, this.#reading);
    const bytes = await super.get(key, start, length);
    this.#reading -= 1;
    return bytes;
  }
}

test("small segments are emptied several at once", async () => {
  const client = new Watched(await made());
  const disk = await openBucket(client, OPTIONS);
  const expected = Array.from({ length: BLOCKS }, (_, block) => block + 1);
  // Opening reads ahead.
  client.readingMax = 0;
  for (const [block, value] of expected.entries()) {
    await disk.write?.(blocksOf(value, 1), block * BLOCK_BYTES);
    await disk.flush?.();
  }
  await until("several are read at once", () => client.readingMax >= 4);
  expect(await contentsOf(disk)).toEqual(expected);
  await disk.close();
});

test("a chunk that is wanted several times at once is unpacked once", async () => {
  const bucket = new Bucket();
  const place = { number: 1, writer: newName() };
  const head = {
    disk: newName(),
    ...place,
    time: 0,
    slots: 4,
    entries: [{ kind: ENTRY.data, block: 0, count: 4 }],
  };
  const blocks = blocksForSegment(4);
  blocks.set(blocksOf(7, 4));
  bucket.put(logKey(place), encodeSegment(head, await pack(blocks, true), blocks));
  const reader = new ChunkReader(new Sources(new Client(bucket), { id: head.disk }));
  const [first, second] = await Promise.all([reader.load(place, 0), reader.load(place, 0)]);
  expect(Buffer.compare(first, blocksOf(7, 4))).toBe(0);
  expect(second).toBe(first);
});

test.each([
  ["none of 20", [], [], true],
  ["one that is tried first", [8], [8], false],
  ["one that is not tried", [9], [], true],
])(
  "chunks that shrink, %s: the object is whole, and not copied if there are none",
  async (_, small, packed, isInPlace) => {
    const noise = pattern(20 * CHUNK_BYTES);
    for (const chunk of small) noise.fill(7, chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    const slots = noise.length / BLOCK_BYTES;
    const blocks = blocksForSegment(slots);
    blocks.set(noise);
    const identity = { disk: newName(), number: 1, writer: newName(), time: 0 };
    const entries = [{ kind: ENTRY.data, block: 5, count: slots }];
    const object = encodeSegment({ ...identity, slots, entries }, await pack(blocks, true), blocks);
    expect(object.buffer === blocks.buffer).toBe(isInPlace);
    const head = decodeHead(object, identity.disk);
    if (head.kind !== "segment") throw new Error("is no segment");
    expect(head).toMatchObject({ ...identity, slots, entries });
    const { compressed, offsets } = head.chunks;
    expect([...compressed.keys()].filter((chunk) => compressed[chunk] === 1)).toEqual(packed);
    for (const [chunk, start] of offsets.subarray(0, -1).entries()) {
      const bytes = await unpack(object.subarray(start, offsets[chunk + 1]), head.chunks, chunk);
      expect(Buffer.compare(bytes, noise.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES))).toBe(0);
    }
  },
);

test("whoever overwrites as fast as the store goes does not fill it", async () => {
  const { stored } = await overwrite({
    bytes: 32 * 2 ** 20,
    times: 10,
    speed: { answerMs: 10, mibMs: 0 },
    seed: 1,
    options: {
      writer: { segmentBlocks: 128, puts: 6, compress: false, idleMs: 100_000 },
      interval: { segments: 8, times: 0, segmentsMax: 8 },
    },
  });
  // Without cleaning, many segments are almost empty after everything was written ten times.
  expect(stored).toBeLessThan(4);
}, 60_000);

test("a disk that is closed while it is cleaned says nothing of that", async () => {
  const cleaning = Promise.withResolvers<void>();
  class Hanging extends Client {
    override async get(key: string, start: number, length: number, signal?: AbortSignal) {
      if (signal === undefined) return super.get(key, start, length);
      cleaning.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw signal.reason;
    }
  }
  const lines: string[] = [];
  const log = (line: string): void => void lines.push(line);
  const disk = await openBucket(new Hanging(await made()), { ...OPTIONS, log });
  for (let block = 0; block < BLOCKS; block += 1) await disk.write?.(blocksOf(block, 1), block * BLOCK_BYTES);
  for (let block = 0; block < BLOCKS; block += 2) await disk.write?.(blocksOf(block, 1), block * BLOCK_BYTES);
  await disk.flush?.();
  await cleaning.promise;
  await disk.close();
  await Bun.sleep(0);
  expect(lines).toEqual([]);
});

test("the adversary finds nothing, with a bad network", async () => {
  const bucket = await made();
  let client = 0;
  const make = (): Promise<BucketDisk> => openBucket(new Client(bucket, ALL_FAULTS, (client += 1)), OPTIONS);
  expect(await checkDevice(make, { ops: 300, persistent: true })).toMatchObject({ failure: undefined });
}, 60_000);

test("what was written through is there without a flush, and only such a disk says which one it is", async () => {
  const bucket = await made();
  expect((await openBucket(new Client(bucket), OPTIONS)).identity).toBeUndefined();
  const disk = await openBucket(new Client(bucket), { ...OPTIONS, writeThrough: true });
  await disk.write?.(blocksOf(7, 3), 5 * BLOCK_BYTES);
  await disk.trim?.(6 * BLOCK_BYTES, BLOCK_BYTES);
  const next = await openBucket(new Client(bucket), { ...OPTIONS, writeThrough: true });
  expect((await contentsOf(next)).slice(4, 9)).toEqual([0, 7, 0, 7, 0]);
  expect(next.identity).toBe(disk.identity ?? "");
});

test("of two that create a disk at once one does", async () => {
  const bucket = new Bucket();
  const create = { ...OPTIONS, create: BLOCKS * BLOCK_BYTES };
  const results = await Promise.allSettled([
    openBucket(new Client(bucket), create),
    openBucket(new Client(bucket), create),
  ]);
  const reasons = results.flatMap((result) => (result.status === "rejected" ? [String(result.reason)] : []));
  expect(reasons).toEqual([
    expect.stringMatching(/has a disk already|is in the way|another process has created/),
  ]);
});
