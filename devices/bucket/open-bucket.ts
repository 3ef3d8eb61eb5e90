/** Opens a disk in a bucket as its next owner, with or without a journal, or as a reader. */
import { hostname } from "node:os";
import { BucketDisk, type BucketOptions, WRITER } from "./device.ts";
import { newName } from "./format.ts";
import type { JournalStorage } from "./journal-file.ts";
import { JournalRecovery } from "./journal-recovery.ts";
import { createDisk, findDisk, openDisk, type Opened } from "./opening.ts";
import type { ObjectStore } from "./parts.ts";
import { openPoint } from "./points.ts";
import { ReaderMark } from "./reader-mark.ts";
import type { DiskRecord, Versioned } from "./records.ts";
import { mustBeKept } from "./sources.ts";

/**
 * Opens the disk, and takes it over from its owner.
 * @throws UserError
 */
export async function openBucket(store: ObjectStore, options: BucketOptions): Promise<BucketDisk> {
  if (options.journal !== undefined) return openJournaled(store, options, options.journal);
  if (options.create !== undefined) await createDisk(store, options.create);
  const disk = await findDisk(store);
  await mustBeKept(store, disk, options.beside);
  if (options.readOnly === true || options.at !== undefined) return openReadOnly(store, disk, options);
  const owner = `process ${process.pid} on ${hostname()}`;
  const opened = await openDisk(store, disk, { writer: newName(), owner, after: options.after });
  return made(new BucketDisk(store, opened.history, options, { opened }), options, opened);
}

/** Makes a checkpoint if the retention changed: the next writer uses that of the newest checkpoint. */
async function made(device: BucketDisk, { keepMs }: BucketOptions, opened: Opened): Promise<BucketDisk> {
  if ((keepMs ?? opened.keepMs) !== opened.keepMs) await device.checkpoint();
  return device;
}

async function openJournaled(
  store: ObjectStore,
  options: BucketOptions,
  storage: JournalStorage,
): Promise<BucketDisk> {
  try {
    const writer = { ...WRITER, ...options.writer };
    const recovery = await JournalRecovery.begin(storage, writer, options.log);
    if (options.create !== undefined) {
      recovery.mustBeOf(undefined);
      await createDisk(store, options.create);
    }
    const disk = await findDisk(store);
    recovery.mustBeOf(disk.id);
    await mustBeKept(store, disk, options.beside);
    const opened = await openDisk(store, disk, recovery.claimant(store, disk));
    const journal = await recovery.finish(store, opened);
    return await made(new BucketDisk(store, opened.history, options, { opened, journal }), options, opened);
  } catch (error) {
    await storage.close();
    throw error;
  }
}

async function openReadOnly(
  store: ObjectStore,
  disk: DiskRecord & Versioned,
  options: BucketOptions,
): Promise<BucketDisk> {
  const mark = await ReaderMark.make(store, options.log);
  const { at } = options;
  try {
    const history =
      at === undefined ? (await openDisk(store, disk)).history : await openPoint(store, disk, at);
    mark?.narrow(history.next.number - 1);
    return new BucketDisk(store, history, options, { mark });
  } catch (error) {
    await mark?.close();
    throw error;
  }
}
