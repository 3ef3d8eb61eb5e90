/**
 * Snapshots: named states of the disk that are kept. Each is an object that is made once, with pages of its own. So
 * only one can take a name, and reading it costs as much as reading a checkpoint.
 */
import { UserError } from "tsbuse";
import { newName, SNAPSHOT_MAP_PREFIX, SNAPSHOT_PREFIX, VERSION } from "./format.ts";
import type { History } from "./history.ts";
import { runsOf } from "./kept-state.ts";
import { findDisk, openDisk } from "./opening.ts";
import { BLOCK_BYTES, type ObjectStore } from "./parts.ts";
import { ReaderMark } from "./reader-mark.ts";
import { encodeRecord, readDisk, readSnapshot, type SnapshotRecord } from "./records.ts";
import { type Beside, mustReach } from "./sources.ts";

export interface Snapshot {
  readonly name: string;
  readonly record: SnapshotRecord;
}

/** Begins with a letter: numbers and times are other points of the log. */
const NAME = /^[A-Za-z][\w.-]{0,99}$/;

/** @throws UserError */
export function mustBeSnapshotName(name: string): void {
  if (NAME.test(name)) return;
  throw new UserError(
    `invalid name "${name}" of a snapshot: give a letter, then up to 99 letters, digits and _.-`,
  );
}

/** Every snapshot, by name. @throws UserError */
export async function* snapshots(store: ObjectStore): AsyncIterable<Snapshot> {
  for await (const { key } of store.list(SNAPSHOT_PREFIX)) {
    const record = await readSnapshot(store, key);
    if (record !== undefined) yield { name: key.slice(SNAPSHOT_PREFIX.length), record };
  }
}

/** @throws UserError if it does not exist. */
export async function findSnapshot(store: ObjectStore, name: string): Promise<SnapshotRecord> {
  mustBeSnapshotName(name);
  const record = await readSnapshot(store, SNAPSHOT_PREFIX + name);
  if (record === undefined) throw noSnapshot(store, name);
  return record;
}

/**
 * Names the current contents of the bucket. The owner of the disk continues; what it has not flushed is not included.
 * @throws UserError
 */
export async function makeSnapshot(
  store: ObjectStore,
  name: string,
  log: (line: string) => void,
): Promise<SnapshotRecord> {
  mustBeSnapshotName(name);
  const disk = await findDisk(store);
  const key = SNAPSHOT_PREFIX + name;
  if ((await readSnapshot(store, key)) !== undefined) throw taken(store, name);
  const mark = await ReaderMark.must(store, log);
  try {
    const { history } = await openDisk(store, disk);
    mustKnowSnapshots(store, history);
    const record = await writeState(store, history);
    mustHold(store, mark);
    const result = await store.create(key, encodeRecord(record)).catch((error: unknown) => {
      // The object may still arrive: what it needs must stay until then.
      mark.leave();
      throw error;
    });
    // An earlier try may have succeeded, and its answer may have been lost.
    if (result === "exists" && (await readSnapshot(store, key))?.id !== record.id) throw taken(store, name);
    if (!mark.holds) await store.remove(key);
    mustHold(store, mark);
    return record;
  } finally {
    await mark.close();
  }
}

/**
 * Removes a snapshot, damaged or not. The disk's next checkpoint removes what only this snapshot needs.
 * @throws UserError for one that a clone needs.
 */
export async function removeSnapshot(store: ObjectStore, name: string, beside?: Beside): Promise<void> {
  mustBeSnapshotName(name);
  const key = SNAPSHOT_PREFIX + name;
  const found = await readSnapshot(store, key).catch((error: unknown) => {
    if (error instanceof UserError) return "damaged" as const;
    throw error;
  });
  if (found === undefined) throw noSnapshot(store, name);
  const clone = found === "damaged" ? undefined : found.clone;
  if (clone !== undefined) {
    const other = mustReach(store, beside)(clone.prefix);
    if ((await readDisk(other))?.id === clone.disk)
      throw new UserError(
        `snapshot "${name}" is needed by the clone ${other.name}: delete all objects of the clone first`,
      );
  }
  await store.remove(key);
}

/** @param history must not change meanwhile. */
async function writeState(store: ObjectStore, history: History): Promise<SnapshotRecord> {
  const { map, turns, next } = history;
  const number = next.number - 1;
  const id = newName();
  const folder = `${SNAPSHOT_MAP_PREFIX}${number.toString(16).padStart(12, "0")}.${id}`;
  const pages: string[] = [];
  for (const page of map.pages()) {
    const key = `${folder}/${pages.length}`;
    await store.create(key, page);
    pages.push(key);
  }
  const segments = runsOf(history.liveSegments(number));
  const live = map.liveBlocks * BLOCK_BYTES;
  return { id, number, time: Date.now(), live, turns, pages, segments };
}

/** The cleaner of an older program would remove what a snapshot needs. */
function mustKnowSnapshots(store: ObjectStore, { version }: History): void {
  if (version >= VERSION) return;
  throw new UserError(
    `${store.name} was last attached by an older tsbuse, which would remove what a snapshot needs: attach it with this one first`,
  );
}

/** Without a mark the disk's owner may have removed what the snapshot needs. */
export function mustHold(store: ObjectStore, mark: ReaderMark): void {
  if (mark.holds) return;
  throw new UserError(`${store.name}: it took too long, or this machine had stopped: try again`);
}

function taken(store: ObjectStore, name: string): UserError {
  return new UserError(
    `${store.name} has a snapshot "${name}" already: give another name, or remove that one`,
  );
}

function noSnapshot(store: ObjectStore, name: string): UserError {
  return new UserError(`${store.name} has no snapshot "${name}": "tsbuse bucket-list" shows all`);
}
