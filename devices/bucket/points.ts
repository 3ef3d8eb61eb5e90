/** Past states of a disk: a snapshot, a number of the log, or a time. */
import { UserError } from "tsbuse";
import type { Head } from "./format.ts";
import { History } from "./history.ts";
import { loadPages, newestCheckpoint, openFrom } from "./opening.ts";
import type { ObjectStore } from "./parts.ts";
import {
  type DiskRecord,
  readRoot,
  type RootRecord,
  type SnapshotRecord,
  type Versioned,
} from "./records.ts";
import { findSnapshot, mustBeSnapshotName, snapshots } from "./snapshots.ts";

export type Point =
  | { readonly kind: "name"; readonly name: string }
  /** The log up to this number. */
  | { readonly kind: "number"; readonly number: number }
  /** The log at this time, in milliseconds since 1970, by the clocks of its writers. */
  | { readonly kind: "time"; readonly time: number };

type Disk = DiskRecord & Versioned;

const TIME = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?$/;

/** @throws UserError */
export function parsePoint(text: string): Point {
  if (/^\d+$/.test(text)) return { kind: "number", number: Number(text) };
  // Date.parse() takes a date without a time as UTC.
  const time = TIME.test(text) ? Date.parse(text.includes("T") ? text : `${text}T00:00`) : Number.NaN;
  if (!Number.isNaN(time)) return { kind: "time", time };
  if (/^\d/.test(text))
    throw new UserError(`"${text}" is not a time: give one such as 2026-01-31T12:00 or 2026-01-31T12:00:00Z`);
  mustBeSnapshotName(text);
  return { kind: "name", name: text };
}

/**
 * Opens the disk as it was. The caller must already have a reader's mark.
 * @throws UserError if that state is not kept.
 */
export async function openPoint(store: ObjectStore, disk: Disk, point: Point): Promise<History> {
  if (point.kind === "name") return openSnapshot(store, disk, await findSnapshot(store, point.name));
  const reach = reachOf(store, disk, point);
  let kept = await keptOf(store);
  for (;;) {
    const { oldest, newest } = kept;
    const base = await lastWithin(store, oldest, newest, reach.covers);
    if (base === undefined) break;
    const opened = await openFrom(store, disk, base, reach);
    kept = await keptOf(store);
    // Otherwise pages may have been removed before they were read; without a mark, so may the log.
    if (opened !== undefined && kept.oldest <= base) return mustReach(store, opened.history, point);
    if (kept.newest === newest) break;
  }
  if (point.kind === "number")
    for await (const { record } of snapshots(store))
      if (record.number === point.number) return openSnapshot(store, disk, record);
  throw new UserError(await goneMessage(store, kept, point));
}

/** The range of states that are kept. It begins with the checkpoint `oldest`; 0: from the beginning. */
interface Kept {
  readonly oldest: number;
  readonly newest: number;
}

async function keptOf(store: ObjectStore): Promise<Kept> {
  const newest = await newestCheckpoint(store);
  const root = newest === 0 ? undefined : await readRoot(store, newest);
  return { oldest: root?.oldest ?? 0, newest };
}

async function openSnapshot(store: ObjectStore, disk: Disk, record: SnapshotRecord): Promise<History> {
  const history = new History(disk, record);
  if (await loadPages(store, record.pages, history)) return history;
  throw new UserError(`${store.name}: the snapshot was removed meanwhile: give another one`);
}

interface Reach {
  /** Whether the state is the checkpoint's, or later. */
  readonly covers: (root: RootRecord) => boolean;
  readonly isBeyond: (head: Head) => boolean;
}

function reachOf(
  store: ObjectStore,
  { created }: Disk,
  point: Exclude<Point, { readonly kind: "name" }>,
): Reach {
  if (point.kind === "number")
    return {
      covers: ({ through }) => through <= point.number,
      isBeyond: ({ number }) => number > point.number,
    };
  if (point.time > Date.now())
    throw new UserError(`${timeText(point.time)} is in the future: give a time that has passed`);
  if (point.time < created)
    throw new UserError(`${store.name} was created at ${timeText(created)}: give that time or a later one`);
  return { covers: ({ time }) => time <= point.time, isBeyond: ({ time }) => time > point.time };
}

/** The newest checkpoint, from `oldest` on, that is not later than the state; undefined if all are later. */
async function lastWithin(
  store: ObjectStore,
  oldest: number,
  newest: number,
  covers: Reach["covers"],
): Promise<number | undefined> {
  // Binary search: the result is at `low` or above, and below `high`.
  let [low, high] = [oldest - 1, newest + 1];
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    const root = middle === 0 ? undefined : await readRoot(store, middle);
    if (middle === 0 || (root !== undefined && covers(root))) low = middle;
    else high = middle;
  }
  return low < oldest ? undefined : low;
}

function mustReach(store: ObjectStore, history: History, point: Point): History {
  const last = history.next.number - 1;
  if (point.kind !== "number" || last >= point.number) return history;
  throw new UserError(`the log of ${store.name} ends at number ${last}: give that or less`);
}

async function goneMessage(store: ObjectStore, { oldest, newest }: Kept, point: Point): Promise<string> {
  const root = oldest > newest ? undefined : await readRoot(store, oldest);
  const what = point.kind === "number" ? `number ${point.number}` : "that time";
  const since = root === undefined ? "" : `number ${root.through} (${timeText(root.time)}) or later, or `;
  return `${store.name} as of ${what} is no longer kept: give ${since}a snapshot`;
}

/** `2026-01-31T12:00:00.000Z`. */
function timeText(ms: number): string {
  return new Date(ms).toISOString();
}
