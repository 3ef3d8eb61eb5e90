/** How long a small write takes until it is durable: on a disk in a bucket by itself, and on what the disk uses. */
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { BucketDisk } from "../../devices/bucket/device.ts";
import { JournalFile } from "../../devices/bucket/journal-file.ts";
import { openBucket } from "../../devices/bucket/open-bucket.ts";
import type { ObjectStore } from "../../devices/bucket/parts.ts";
import { pattern } from "../../test/support/random.ts";
import { median } from "./statistics.ts";

export const SYNCS = 64;
export const SYNC_BYTES = 4096;
/** A directory on a disk, because /tmp may be in memory. */
const JOURNAL_PARENT = "/var/tmp";
const DISK_BYTES = 2 ** 30;

/** Makes a small durable write; `turn` determines its place. */
type Sync = (turn: number) => Promise<unknown>;

/** The medians of a PUT, and of a write and flush, in milliseconds. */
export async function putAndFlush(
  store: ObjectStore,
  own: ObjectStore,
  log: (line: string) => void,
): Promise<readonly [number, number]> {
  const body = pattern(SYNC_BYTES);
  const device = await openBucket(own, { create: DISK_BYTES, log });
  const medians = await inTurn((turn) => store.create(String(turn), body), syncsOf(device));
  await device.close();
  return medians;
}

/** The same for a write to a file and fdatasync(2), and for a write and flush with a journal on the same disk. */
export async function fileAndJournal(
  own: ObjectStore,
  log: (line: string) => void,
): Promise<readonly [number, number]> {
  const directory = mkdtempSync(join(JOURNAL_PARENT, "tsbuse-bucket-bench-"));
  try {
    const journal = await JournalFile.open(join(directory, "journal"));
    const device = await openBucket(own, { create: DISK_BYTES, log, journal });
    await using file = await open(join(directory, "file"), "w");
    const body = pattern(SYNC_BYTES);
    // The journal's space is allocated from the start, too.
    await file.write(pattern(SYNCS * SYNC_BYTES));
    await file.sync();
    const write: Sync = async (turn) => {
      await file.write(body, 0, SYNC_BYTES, turn * SYNC_BYTES);
      await file.datasync();
    };
    const medians = await inTurn(write, syncsOf(device));
    await device.close();
    return medians;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function syncsOf(device: BucketDisk): Sync {
  const body = pattern(SYNC_BYTES);
  return async (turn) => {
    await device.write?.(body, turn * 2 * SYNC_BYTES);
    await device.flush?.();
  };
}

async function inTurn(one: Sync, other: Sync): Promise<readonly [number, number]> {
  const [ones, others]: [number[], number[]] = [[], []];
  for (let turn = 0; turn < SYNCS; turn += 1) {
    ones.push(await msOf(() => one(turn)));
    others.push(await msOf(() => other(turn)));
  }
  return [median(ones), median(others)];
}

export async function msOf(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}
