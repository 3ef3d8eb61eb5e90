/**
 * Removes what no checkpoint that is kept, no snapshot and no reader needs. The order makes this safe while other
 * machines make marks and snapshots:
 *
 * - The new checkpoint is published first. Its root names the oldest checkpoint that is kept. A reader that makes its
 *   mark after that begins with this checkpoint, or learns from it which earlier states are gone.
 * - Marks are read before snapshots: whoever makes a snapshot has a mark from before until after.
 * - Marks are read after snapshots as well: a reader makes its mark first, and only then looks for its snapshot.
 * - Whoever makes a clone makes a second snapshot, then checks that the first still exists: one of the two is found.
 * - What may be removed is listed before both: whoever makes the map of a snapshot already had a mark then.
 */
import {
  CLAIM_BYTES,
  ENDED_PREFIX,
  LOG_PREFIX,
  type LogPlace,
  logKey,
  MAP_PREFIX,
  placeOf,
  SNAPSHOT_MAP_PREFIX,
  SNAPSHOT_PREFIX,
} from "./format.ts";
import { KeptNumbers, KeptState } from "./kept-state.ts";
import type { ObjectStore } from "./parts.ts";
import { readMarks } from "./reader-mark.ts";
import { readSnapshot, type RootRecord } from "./records.ts";

/** Objects removed at once. */
const REMOVALS = 8;

/**
 * @param newest the checkpoint just published.
 * @param oldest the oldest one to keep; undefined: all, and with them the whole log.
 * @returns the segments that snapshots keep.
 * @throws StoreError
 */
export async function sweep(
  store: ObjectStore,
  newest: RootRecord,
  oldest: RootRecord | undefined,
  signal: AbortSignal,
): Promise<KeptNumbers> {
  const keys = await keysOf(store, ENDED_PREFIX, signal);
  const maps = await keysOf(store, SNAPSHOT_MAP_PREFIX, signal);
  let segments: LogPlace[] = [];
  if (oldest !== undefined) {
    keys.push(...(await stalePages(store, newest, oldest, signal)));
    segments = await unneeded(store, oldest, signal);
  }
  const before = await readMarks(store, signal);
  await removeAll(store, before.expired, signal);
  const once = await readSnapshots(store, signal);
  // A removed snapshot may have been replaced by one that the listing did not contain yet.
  const { kept, folders } = once.isWhole ? once : await readSnapshots(store, signal);
  segments = segments.filter((place) => !kept.some((state) => state.needs(place)));
  const after = await readMarks(store, signal);
  const upTo = Math.max(before.upTo, after.upTo);
  for (const key of maps) if (!folders.has(folderOf(key)) && numberOf(key) > upTo) keys.push(key);
  for (const place of segments) if (place.number > upTo) keys.push(logKey(place));
  await removeAll(store, keys, signal);
  return kept.reduce((all, state) => state.joinedTo(all), new KeptNumbers());
}

interface Found {
  readonly kept: KeptState[];
  /** The folders of their maps. */
  readonly folders: ReadonlySet<string>;
  /** False: one was removed while they were read. */
  readonly isWhole: boolean;
}

async function readSnapshots(store: ObjectStore, signal: AbortSignal): Promise<Found> {
  const kept: KeptState[] = [];
  const folders = new Set<string>();
  let isWhole = true;
  for await (const { key } of store.list(SNAPSHOT_PREFIX, undefined, signal)) {
    const record = await readSnapshot(store, key);
    if (record === undefined) isWhole = false;
    else {
      kept.push(new KeptState(record));
      folders.add(folderOf(record.pages[0] ?? ""));
    }
  }
  return { kept, folders, isWhole };
}

async function keysOf(store: ObjectStore, prefix: string, signal: AbortSignal): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix, undefined, signal)) keys.push(key);
  return keys;
}

/** Pages that only earlier checkpoints needed, or that were left by a writer that died. */
async function stalePages(
  store: ObjectStore,
  newest: RootRecord,
  oldest: RootRecord,
  signal: AbortSignal,
): Promise<string[]> {
  const kept = new Set([...newest.pages, ...oldest.pages]);
  const keys = await keysOf(store, MAP_PREFIX, signal);
  return keys.filter((key) => !kept.has(key) && numberOf(key) <= oldest.number);
}

/** Segments that neither this checkpoint nor a later one needs. Its readers read everything that follows it. */
async function unneeded(store: ObjectStore, oldest: RootRecord, signal: AbortSignal): Promise<LogPlace[]> {
  const state = new KeptState(oldest);
  const places: LogPlace[] = [];
  for await (const { key, size } of store.list(LOG_PREFIX, undefined, signal)) {
    const place = placeOf(key);
    if (place === undefined || size === CLAIM_BYTES) continue;
    if (place.number > oldest.number) break;
    if (!state.needs(place)) places.push(place);
  }
  return places;
}

/** `map/NUMBER.WRITER` from the key of a page. */
function folderOf(key: string): string {
  return key.slice(0, key.lastIndexOf("/"));
}

/** The number in the key of a page. */
function numberOf(key: string): number {
  return Number.parseInt(key.slice(key.indexOf("/") + 1), 16);
}

async function removeAll(store: ObjectStore, keys: readonly string[], signal: AbortSignal): Promise<void> {
  for (let at = 0; at < keys.length; at += REMOVALS)
    await Promise.all(keys.slice(at, at + REMOVALS).map((key) => store.remove(key, signal)));
}
