/**
 * Removing what nothing needs: no checkpoint that is kept, no snapshot, no reader. The order is what makes it safe
 * beside those who make a mark or a snapshot at the same time, on other machines.
 *
 * - The checkpoint that follows from it is published first, with the oldest one that is kept in its root. Who makes
 *   a mark after that begins with this checkpoint, or learns from it which earlier states are gone.
 * - Marks are read before snapshots: who makes a snapshot has a mark from before until after.
 * - Marks are read after snapshots as well: who reads a snapshot makes a mark, and only then looks for it.
 * - Who makes a clone makes a second snapshot, and sees that the first one is still there: one of both is found.
 * - What may be removed is listed before both: who makes the map of a snapshot had a mark then.
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

/** Objects that are removed at once. */
const REMOVALS = 8;

/**
 * @param newest the checkpoint that was just published.
 * @param oldest the oldest one that is kept; undefined: all are, and with them the whole log.
 * @returns what snapshots keep.
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
  // The place of one that has gone may have been taken by one that was not there yet when they were listed.
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
  /** Those of their maps. */
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

/** Pages of checkpoints that only earlier ones needed, or that died with their writer. */
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

/** Segments that this checkpoint does not need, nor any later one. What follows it is read by who begins with it. */
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

/** `map/NUMBER.WRITER` of the key of a page. */
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
