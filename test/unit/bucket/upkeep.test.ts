/** Goal: the reported space of a disk is right, and cleaning it by hand frees all that it can and harms nobody. */
import { expect, spyOn, test } from "bun:test";
import { ChunkReader } from "../../../devices/bucket/chunk-reader.ts";
import { cleanBucket } from "../../../devices/bucket/clean.ts";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { KeptNumbers, KeptState, runsOf } from "../../../devices/bucket/kept-state.ts";
import { Pace } from "../../../devices/bucket/pace.ts";
import { CHUNK_BYTES } from "../../../devices/bucket/packing.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { makeSnapshot, removeSnapshot } from "../../../devices/bucket/snapshots.ts";
import { summarize } from "../../../devices/bucket/summary.ts";
import { summaryJson, summaryText } from "../../../src/cli/commands/bucket-list.ts";
import { Bucket, Client, keysOf, PROMPT_FAULTS } from "../../support/bucket.ts";
import {
  BLOCKS,
  blocksOf,
  BY_HAND,
  contentsOf,
  made,
  Model,
  OPTIONS,
  silent,
  work,
} from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { chooseSeed, Random } from "../../support/random.ts";

const SEGMENTS = BLOCKS / 8;
const CLEAN = { takeOver: false, bandwidth: undefined, log: silent };

/** Replaces every block: {@link SEGMENTS} segments. */
async function fill(disk: BucketDisk, value: number): Promise<void> {
  for (let block = 0; block < BLOCKS; block += 8) await disk.write?.(blocksOf(value, 8), block * BLOCK_BYTES);
  await disk.flush?.();
}

/** The number and size of the log objects with these numbers. */
function tallyOf({ objects }: Bucket, first: number, count: number): { objects: number; bytes: number } {
  const sizes = [...objects].flatMap(([key, { length }]) => {
    const number = Number.parseInt(key.slice("log/".length), 16);
    return key.startsWith("log/") && number >= first && number < first + count ? [length] : [];
  });
  return { objects: sizes.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

/** A disk with few live blocks in each segment, detached or not. */
async function sparse(client: Client): Promise<{ disk: BucketDisk; contents: number[] }> {
  const disk = await openBucket(client, BY_HAND);
  await fill(disk, 1);
  const contents = Array.from({ length: BLOCKS }, () => 1);
  for (let block = 0; block < BLOCKS; block += 8) {
    await disk.trim?.((block + 1) * BLOCK_BYTES, 6 * BLOCK_BYTES);
    contents.fill(0, block + 1, block + 7);
  }
  await disk.flush?.();
  return { disk, contents };
}

test("the figures of a disk are those that a count of its objects gives", async () => {
  const bucket = await made();
  const disk = await openBucket(new Client(bucket), BY_HAND);
  // The claim of the first owner is number 1, this one's 2.
  await fill(disk, 1);
  await makeSnapshot(new Client(bucket), "one", silent);
  await fill(disk, 2);
  await disk.checkpoint();
  await fill(disk, 3);
  const found = await summarize(new Client(bucket));
  const all = [...bucket.objects.values()].map(({ length }) => length);
  expect(found).toMatchObject({
    size: BLOCKS * BLOCK_BYTES,
    live: BLOCKS * BLOCK_BYTES,
    number: 2 + 3 * SEGMENTS,
    oldest: { number: 2 + 2 * SEGMENTS },
    keepMs: 0,
    stored: { objects: all.length, bytes: all.reduce((sum, size) => sum + size, 0) },
    segments: {
      kept: tallyOf(bucket, 3, SEGMENTS),
      garbage: tallyOf(bucket, 3 + SEGMENTS, SEGMENTS),
      live: tallyOf(bucket, 3 + 2 * SEGMENTS, SEGMENTS),
    },
    snapshots: [{ name: "one", number: 2 + SEGMENTS, live: BLOCKS * BLOCK_BYTES }],
    owner: { name: expect.stringMatching(/^process \d+ on /), hasEnded: false },
  });
  expect(found.segments.kept.objects).toBe(SEGMENTS);
  await disk.close();
  const last = await summarize(new Client(bucket));
  expect(last.segments.garbage).toEqual({ objects: 0, bytes: 0 });
  expect(last.owner).toMatchObject({ hasEnded: true, since: found.owner?.since });
  expect(summaryText(last)).toMatch(/^owner +process \d+ on \S+ since \S+, detached$/m);
  expect(summaryText(last)).toMatch(/^snapshot +one: number 10, \S+, 256 KiB$/m);
  expect(JSON.parse(summaryJson(last))).toMatchObject({
    data: 262_144,
    live: last.segments.live,
    snapshots: [{ name: "one", number: 10, data: 262_144 }],
  });
});

test("what the owner writes while the disk is looked at is no garbage", async () => {
  const bucket = await made();
  const disk = await openBucket(new Client(bucket), BY_HAND);
  await fill(disk, 1);
  const client = new (class extends Client {
    override async *list(...args: Parameters<Client["list"]>): ReturnType<Client["list"]> {
      if (args[0] === "") await fill(disk, 2);
      yield* super.list(...args);
    }
  })(bucket);
  const { segments } = await summarize(client);
  expect(segments).toMatchObject({ live: { objects: 2 * SEGMENTS }, garbage: { objects: 0 } });
  await disk.close();
});

test("cleaning by hand gathers what is live, and refuses a disk that somebody may have", async () => {
  const bucket = await made();
  const { disk, contents } = await sparse(new Client(bucket));
  await makeSnapshot(new Client(bucket), "a", silent);
  expect(await userFailure(cleanBucket(new Client(bucket), CLEAN))).toMatch(
    /is in use by process \d+ on .*: detach it there, or give --take-over/,
  );
  await disk.flush?.();
  await disk.close();
  await cleanBucket(new Client(bucket), CLEAN);
  expect(keysOf(bucket, "log/").length).toBeGreaterThan(SEGMENTS);
  await removeSnapshot(new Client(bucket), "a");
  const { after } = await cleanBucket(new Client(bucket), CLEAN);
  expect(after.segments).toMatchObject({
    live: { objects: 1 },
    kept: { objects: 0 },
    garbage: { objects: 0 },
  });
  expect(after.owner?.hasEnded).toBe(true);
  // There is nothing more to do.
  const again = await cleanBucket(new Client(bucket), CLEAN);
  expect(again.after.segments).toEqual(again.before.segments);
  const last = await openBucket(new Client(bucket), BY_HAND);
  expect(await contentsOf(last)).toEqual(contents);
  // Its server is alive, and a user who says otherwise takes the disk over.
  await cleanBucket(new Client(bucket), { ...CLEAN, takeOver: true });
  last.write?.(blocksOf(1, 1), 0);
  await expect(Promise.resolve(last.flush?.())).rejects.toThrow("was taken over by process ");
});

test("who attaches the disk while it is looked at keeps it", async () => {
  const bucket = await made();
  let other: BucketDisk | undefined;
  const client = new (class extends Client {
    override async create(...args: Parameters<Client["create"]>): ReturnType<Client["create"]> {
      other ??= await openBucket(new Client(bucket), BY_HAND);
      return super.create(...args);
    }
  })(bucket);
  expect(await userFailure(cleanBucket(client, CLEAN))).toMatch(
    /was attached by process \d+ on .* meanwhile/,
  );
  await fill(other ?? expect.unreachable(), 5);
  expect((await summarize(new Client(bucket))).owner?.hasEnded).toBe(false);
});

test("a cleaner that dies at any of its operations leaves the disk and its snapshot as they were", async () => {
  const seed = chooseSeed("cleaner deaths");
  let wasAlive = false;
  for (let operation = 0; !wasAlive; operation += 1)
    for (const isApplied of [false, true]) {
      const bucket = await made();
      const { disk, contents } = await sparse(new Client(bucket));
      await makeSnapshot(new Client(bucket), "a", silent);
      await disk.write?.(blocksOf(2, 1), 0);
      await disk.close();
      const client = new Client(bucket, PROMPT_FAULTS, seed + operation);
      client.death = { operation, isApplied };
      await Promise.race([cleanBucket(client, CLEAN), client.died]);
      wasAlive = !client.isDead;
      const why = `seed ${seed}, operation ${operation}`;
      const point = { kind: "name", name: "a" } as const;
      const snapshot = await openBucket(new Client(bucket), { ...BY_HAND, at: point });
      expect(await contentsOf(snapshot), why).toEqual(contents);
      await snapshot.close();
      await cleanBucket(new Client(bucket), { ...CLEAN, takeOver: true });
      const last = await openBucket(new Client(bucket), { ...BY_HAND, readOnly: true });
      expect(await contentsOf(last), why).toEqual(contents.with(0, 2));
    }
}, 60_000);

test("whatever was written, cleaning by hand ends, and changes nothing", async () => {
  const seed = chooseSeed("cleaning");
  for (let round = 0; round < 10; round += 1) {
    const bucket = await made();
    const model = new Model();
    const disk = await openBucket(new Client(bucket), OPTIONS);
    await work(disk, model, new Random(seed + round), 100);
    await disk.close();
    const { after } = await cleanBucket(new Client(bucket), CLEAN);
    expect(after.segments.garbage.objects).toBe(0);
    const last = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
    expect(await contentsOf(last), `seed ${seed}, round ${round}`).toEqual(model.states[model.last] ?? []);
  }
}, 60_000);

test("cleaning what is nearly empty has no more than 64 MiB of chunks in memory", async () => {
  const [segments, chunks] = [96, 16];
  const writer = { segmentBlocks: 16 * chunks, puts: 3, compress: true, idleMs: 100_000 };
  const create = segments * chunks * CHUNK_BYTES;
  const disk = await openBucket(new Client(new Bucket()), { ...BY_HAND, writer, create });
  for (let segment = 0; segment < segments; segment += 1)
    await disk.write?.(new Uint8Array(chunks * CHUNK_BYTES), segment * chunks * CHUNK_BYTES);
  // One block of each chunk stays.
  for (let at = 0; at < create; at += CHUNK_BYTES) await disk.trim?.(at, CHUNK_BYTES - BLOCK_BYTES);
  await disk.checkpoint();
  let [loading, most] = [0, 0];
  const { load } = ChunkReader.prototype;
  const spy = spyOn(ChunkReader.prototype, "load").mockImplementation(function (this: ChunkReader, ...args) {
    loading += 1;
    most = Math.max(most, loading);
    return load.apply(this, args).finally(() => (loading -= 1));
  });
  await disk.clean();
  spy.mockRestore();
  expect(most * CHUNK_BYTES).toBeGreaterThan(0);
  expect(most * CHUNK_BYTES).toBeLessThanOrEqual(64 * 2 ** 20);
  await disk.close();
}, 60_000);

test("what several states need together is what any of them needs", () => {
  const seed = chooseSeed("kept numbers");
  const random = new Random(seed);
  for (let round = 0; round < 200; round += 1) {
    const needed = new Set<number>();
    let kept = new KeptNumbers();
    for (let states = random.below(5); states > 0; states -= 1) {
      const numbers = Array.from({ length: random.below(20) }, () => random.below(40));
      numbers.forEach((number) => needed.add(number));
      kept = new KeptState({ turns: [], segments: runsOf(new Set(numbers)) }).joinedTo(kept);
    }
    const found = Array.from({ length: 42 }, (_, number) => number).filter((number) => kept.has(number));
    expect(found, `seed ${seed}, round ${round}`).toEqual([...needed].toSorted((a, b) => a - b));
  }
});

test("no more is read in a second than the bound", async () => {
  const pace = new Pace(1_000_000);
  const { signal } = new AbortController();
  const begun = performance.now();
  for (let step = 0; step < 3; step += 1) await pace.take(50_000, signal);
  // The third waits for the two before it.
  expect(performance.now() - begun).toBeGreaterThanOrEqual(100);
  const bucket = await made();
  const { disk } = await sparse(new Client(bucket));
  await disk.close();
  const before = performance.now();
  await cleanBucket(new Client(bucket), { ...CLEAN, bandwidth: 4 * 2 ** 20 });
  // Each segment counts with a head of 64 KiB and a chunk of as much, and the last one waits for the others.
  expect(performance.now() - before).toBeGreaterThanOrEqual(((SEGMENTS - 2) / 32) * 1000);
  const stop = new AbortController();
  await pace.take(1_000_000_000, signal);
  stop.abort();
  await pace.take(1, stop.signal);
});
