/** A disk over a bucket in memory, and a model of what it may hold. */
import type { BucketDisk, BucketOptions } from "../../devices/bucket/device.ts";
import { openBucket } from "../../devices/bucket/open-bucket.ts";
import { BLOCK_BYTES } from "../../devices/bucket/parts.ts";
import { Bucket, Client } from "./bucket.ts";
import type { Random } from "./random.ts";

export const BLOCKS = 64;
export const OPTIONS: BucketOptions = {
  // Small, so that even a short test has many of each.
  writer: { segmentBlocks: 8, puts: 3, compress: false, idleMs: 100_000 },
  interval: { segments: 3, times: 0, segmentsMax: 3 },
  log: (line) => console.log(line),
};

/** Only the test makes checkpoints. */
export const BY_HAND: BucketOptions = {
  ...OPTIONS,
  interval: { segments: 1_000_000, times: 0, segmentsMax: 1_000_000 },
};

export function silent(): void {}

/** What a disk should hold: for each block the number of the last write to it, 0 for none. */
export class Model {
  readonly states: number[][] = [Array.from({ length: BLOCKS }, () => 0)];
  /** The disk must not hold less than this state. */
  flushed = 0;

  change(first: number, count: number, value: number): void {
    const state = [...(this.states.at(-1) ?? [])];
    state.fill(value, first, first + count);
    this.states.push(state);
  }

  get last(): number {
    return this.states.length - 1;
  }
}

export function blocksOf(value: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 4) view.setUint32(at, value, true);
  return bytes;
}

/** The contents of a disk with this value in every block. */
export function filled(value: number): number[] {
  return Array.from({ length: BLOCKS }, () => value);
}

/** Replaces every block, and removes objects that are no longer needed. */
export async function replace(disk: BucketDisk, value: number): Promise<void> {
  for (let block = 0; block < BLOCKS; block += 8) await disk.write?.(blocksOf(value, 8), block * BLOCK_BYTES);
  await disk.checkpoint();
}

export async function contentsOf(disk: BucketDisk): Promise<number[]> {
  const bytes = new Uint8Array(BLOCKS * BLOCK_BYTES);
  await disk.read(bytes, 0);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: BLOCKS }, (_, block) => {
    const value = view.getUint32(block * BLOCK_BYTES, true);
    const all = bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    return Buffer.compare(all, blocksOf(value, 1)) === 0 ? value : -1;
  });
}

/** Writes, trims and flushes `count` times or until the disk fails. The model learns of each change before the disk. */
export async function work(disk: BucketDisk, model: Model, random: Random, count: number): Promise<void> {
  const flushes: Promise<void>[] = [];
  for (let step = 0; step < count; step += 1) {
    const first = random.below(BLOCKS);
    const length = 1 + random.below(Math.min(6, BLOCKS - first));
    const kind = random.below(10);
    if (kind < 7) {
      const value = model.states.length;
      model.change(first, length, value);
      await disk.write?.(blocksOf(value, length), first * BLOCK_BYTES);
    } else if (kind < 8) {
      model.change(first, length, 0);
      await disk.trim?.(first * BLOCK_BYTES, length * BLOCK_BYTES);
    } else {
      const state = model.last;
      const flush = Promise.resolve(disk.flush?.()).then(
        () => void (model.flushed = Math.max(model.flushed, state)),
      );
      flush.catch(() => undefined);
      flushes.push(flush);
      if (kind === 9) await flush;
    }
  }
  await Promise.all(flushes);
}

/** Expects the disk to hold one of the possible states; returns which. */
export async function expectState(disk: BucketDisk, model: Model, why: string): Promise<number> {
  const found = await contentsOf(disk);
  const isSame = (state: readonly number[] | undefined): boolean =>
    state?.every((value, at) => value === found[at]) === true;
  for (let state = model.last; state >= model.flushed; state -= 1)
    if (isSame(model.states[state])) return state;
  const earlier = model.states.findLastIndex((state) => isSame(state));
  throw new Error(`${why}: state ${earlier} of ${model.last}, flushed ${model.flushed}: ${found.join(" ")}`);
}

/** A bucket with an empty disk. */
export async function made(bucket = new Bucket()): Promise<Bucket> {
  const disk = await openBucket(new Client(bucket), { ...OPTIONS, create: BLOCKS * BLOCK_BYTES });
  await disk.close();
  return bucket;
}
