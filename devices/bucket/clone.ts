/**
 * Clones: independent disks that begin as a snapshot of another disk and share its segments. In the origin a second
 * snapshot, which names the clone, keeps those segments. It is made last: a clone without it does not open.
 */
import { UserError } from "tsbuse";
import { checkpointKey, DamageError, DISK_KEY, MAP_PREFIX, newName, SNAPSHOT_PREFIX } from "./format.ts";
import { undamaged } from "./log-reader.ts";
import { decodePage } from "./map-page.ts";
import { findDisk, mustBeEmpty } from "./opening.ts";
import { BLOCK_BYTES, type ObjectStore, PAGE_BYTES_MAX } from "./parts.ts";
import { ReaderMark } from "./reader-mark.ts";
import { type DiskRecord, encodeRecord, readDisk, readSnapshot, type SnapshotRecord } from "./records.ts";
import { findSnapshot, mustHold } from "./snapshots.ts";

/** Characters of a prefix that become part of a name. */
const PREFIX_MAX = 60;

/** A disk, and its place in the bucket that both disks share. */
export interface Placed {
  readonly store: ObjectStore;
  /** Ends with a slash. */
  readonly prefix: string;
}

/**
 * Makes a disk at `target` with the contents of the snapshot `name` of `origin`. Copies no data.
 * @returns the name of the snapshot that keeps it.
 * @throws UserError
 */
export async function cloneDisk(
  origin: Placed,
  name: string,
  target: Placed,
  log: (line: string) => void,
): Promise<string> {
  const disk = await findDisk(origin.store);
  if ((await readDisk(target.store)) !== undefined)
    throw new UserError(`${target.store.name} has a disk already: give another prefix`);
  await mustBeEmpty(target.store);
  // Until the second snapshot exists, everything that the first one needs must stay, even if that one is removed.
  const mark = await ReaderMark.must(origin.store, log);
  const made: string[] = [];
  try {
    const record = await findSnapshot(origin.store, name);
    const clone = { id: newName(), snapshot: nameOf(target), made };
    await writeDisk(origin, target, disk, record, clone);
    mustHold(origin.store, mark);
    const key = SNAPSHOT_PREFIX + clone.snapshot;
    const kept = { ...record, id: newName(), clone: { prefix: target.prefix, disk: clone.id } };
    await origin.store.create(key, encodeRecord(kept));
    // A sweep that sees no mark reads the snapshots in between, and finds the first one or the second.
    const isKept = (await readSnapshot(origin.store, SNAPSHOT_PREFIX + name))?.id === record.id && mark.holds;
    if (!isKept) await origin.store.remove(key);
    if (!isKept) throw new UserError(`snapshot "${name}" was removed meanwhile: give another one`);
    return clone.snapshot;
  } catch (error) {
    // The first object made keeps others from the prefix, so it goes last. Leftovers do not open as a disk.
    for (const key of made.toReversed()) await target.store.remove(key).catch(() => undefined);
    throw error;
  } finally {
    await mark.close();
  }
}

interface Making {
  readonly id: string;
  readonly snapshot: string;
  /** Receives the keys of the objects made. */
  readonly made: string[];
}

/** Writes the objects of the clone. The first one keeps others from its prefix. */
async function writeDisk(
  origin: Placed,
  { store }: Placed,
  parent: DiskRecord,
  record: SnapshotRecord,
  { id, snapshot, made }: Making,
): Promise<void> {
  const { number, segments } = record;
  const { size } = parent;
  const shared = { prefix: origin.prefix, disk: parent.id, until: number, snapshot };
  const disk: DiskRecord = {
    id,
    size,
    created: Date.now(),
    writer: newName(),
    origins: [...(parent.origins ?? []), shared],
  };
  const result = await store.create(DISK_KEY, encodeRecord(disk));
  if (result === "exists" && (await readDisk(store))?.id !== id)
    throw new UserError(`another process has created a disk in ${store.name}: give another prefix`);
  made.push(DISK_KEY);
  const pages: string[] = [];
  for (const page of record.pages) {
    const key = `${MAP_PREFIX}${number.toString(16).padStart(12, "0")}.${disk.writer}/${pages.length}`;
    made.push(key);
    await store.create(key, await readPage(origin.store, page, size));
    pages.push(key);
  }
  const turns = [...record.turns, { first: number + 1, writer: disk.writer }];
  const state = { number, turns, pages, segments, time: Date.now() };
  // Nobody else opens the disk yet, so nobody else makes this checkpoint.
  made.push(checkpointKey(1));
  await store.create(checkpointKey(1), encodeRecord({ ...state, through: number, oldest: 1, keepMs: 0 }));
}

/** @param size of the disk, in bytes. */
function readPage(store: ObjectStore, key: string, size: number): Promise<Uint8Array<ArrayBuffer>> {
  return undamaged(store.name, key, async () => {
    const page = await store.get(key, 0, PAGE_BYTES_MAX);
    if (page === undefined) throw new UserError(`${store.name}/${key} is gone: give another snapshot`);
    try {
      decodePage(page, size / BLOCK_BYTES);
    } catch (error) {
      throw new DamageError(error instanceof Error ? error.message : String(error));
    }
    return new Uint8Array(page);
  });
}

/** `clone-vm.7-0f3a55c1` for a disk at `vm/7/`. */
function nameOf({ prefix }: Placed): string {
  const words = prefix
    .slice(0, -1)
    .replaceAll(/[^\w-]+/g, ".")
    .slice(-PREFIX_MAX);
  return `clone-${words}-${newName().slice(0, 8)}`;
}
