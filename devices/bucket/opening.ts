/**
 * Creates disks, and finds out what they contain. Nothing here relies on a complete listing: it only says where to
 * begin.
 */
import { UserError } from "tsbuse";
import {
  CHECKPOINT_PREFIX,
  checkpointKey,
  DamageError,
  DISK_KEY,
  encodeClaim,
  type Head,
  type LogPlace,
  logKey,
  newName,
} from "./format.ts";
import { History } from "./history.ts";
import { readHead, undamaged } from "./log-reader.ts";
import { DISK_BYTES_MAX, type ObjectStore, PAGE_BYTES_MAX } from "./parts.ts";
import { type DiskRecord, encodeRecord, readDisk, readRoot, type Versioned } from "./records.ts";

/** The most objects of the log to read at once. */
const AHEAD_MAX = 32;
const PAGES_AT_ONCE = 8;
const PROBE_PREFIX = "probe/";

export interface Claimant {
  /** The name under which to claim the disk. */
  readonly writer: string;
  /** Host and process, for messages. */
  readonly owner: string;
  /** Claim the disk only from this writer. */
  readonly after?: string | undefined;
  /** Called before each attempt to claim the disk at the end of the history. An exception ends the opening. */
  readonly beforeClaim?: (history: History) => Promise<void>;
}

export interface Opened {
  readonly history: History;
  /** The number of the newest checkpoint; 0 without one. */
  readonly checkpoint: number;
  /** The last number of the log in that checkpoint. */
  readonly checkpointed: number;
  /** States are kept from this checkpoint on; 0: from the beginning. */
  readonly oldest: number;
  /** How long states are kept, in milliseconds; 0: only the newest. */
  readonly keepMs: number;
  /** The last claim that was read on the way. */
  readonly before: { readonly owner: string; readonly time: number } | undefined;
}

/** Creates an empty disk. @throws UserError */
export async function createDisk(store: ObjectStore, size: number): Promise<void> {
  if (size > DISK_BYTES_MAX) throw new UserError("a disk in a bucket has at most 256T: give --create less");
  if ((await readDisk(store)) !== undefined)
    throw new UserError(`${store.name} has a disk already: leave out --create, or give another prefix`);
  await mustBeEmpty(store);
  await mustKnowConditions(store);
  const disk: DiskRecord = { id: newName(), size, created: Date.now(), writer: newName() };
  const result = await store.create(DISK_KEY, encodeRecord(disk));
  if (result === "exists" && (await readDisk(store))?.id !== disk.id)
    throw new UserError(
      `another process has created a disk in ${store.name}: leave out --create, or give another prefix`,
    );
}

/** @throws UserError */
export async function mustBeEmpty(store: ObjectStore): Promise<void> {
  for await (const { key } of store.list(""))
    if (!key.startsWith(PROBE_PREFIX))
      throw new UserError(`${store.name}/${key} is in the way: give another prefix`);
}

/** Without conditions two writers would not notice each other. @throws UserError */
async function mustKnowConditions(store: ObjectStore): Promise<void> {
  const key = PROBE_PREFIX + newName();
  const body = new Uint8Array([1]);
  await store.create(key, body);
  const result = await store.create(key, body);
  await store.remove(key);
  if (result === "created")
    throw new UserError(
      `${store.name} does not honour If-None-Match on PUT, which keeps two writers apart: use another store`,
    );
}

/** The record of the disk. @throws UserError if there is none */
export async function findDisk(store: ObjectStore): Promise<DiskRecord & Versioned> {
  const disk = await readDisk(store);
  if (disk === undefined) throw new UserError(`${store.name} has no disk: --create SIZE makes one`);
  return disk;
}

/**
 * Reads what the disk contains.
 * @param claimant owns the disk from then on; absent: the disk is only read.
 * @throws UserError
 */
export async function openDisk(
  store: ObjectStore,
  disk: DiskRecord & Versioned,
  claimant?: Claimant,
): Promise<Opened> {
  for (;;) {
    const opened = await openFrom(store, disk, await newestCheckpoint(store), { claimant });
    // A newer checkpoint may have removed part of the log before it was read here.
    if (opened !== undefined && !(await exists(store, opened.checkpoint + 1))) return opened;
  }
}

async function exists(store: ObjectStore, checkpoint: number): Promise<boolean> {
  return (await store.get(checkpointKey(checkpoint), 0, 1)) !== undefined;
}

/** The number of the newest checkpoint; 0 without one. */
export async function newestCheckpoint(store: ObjectStore): Promise<number> {
  let newest = 0;
  for await (const { key } of store.list(CHECKPOINT_PREFIX)) {
    const number = Number.parseInt(key.slice(CHECKPOINT_PREFIX.length), 16);
    if (checkpointKey(number) === key) newest = Math.max(newest, number);
  }
  while (await exists(store, newest + 1)) newest += 1;
  return newest;
}

interface Reach {
  readonly claimant?: Claimant | undefined;
  /** The first object of the log to leave out. What the checkpoint may contain in part is always applied. */
  readonly isBeyond?: (head: Head) => boolean;
}

/** Undefined when the checkpoint was removed meanwhile. */
export async function openFrom(
  store: ObjectStore,
  disk: DiskRecord & Versioned,
  checkpoint: number,
  { claimant, isBeyond = () => false }: Reach,
): Promise<Opened | undefined> {
  const root = checkpoint === 0 ? undefined : await readRoot(store, checkpoint);
  if (checkpoint > 0 && root === undefined) return undefined;
  const through = root?.through ?? 0;
  const isEnd = (head: Head): boolean => head.number > through && isBeyond(head);
  const history = new History(disk, root);
  const checkpointed = history.next.number - 1;
  if (!(await loadPages(store, root?.pages ?? [], history))) return undefined;
  let before: Opened["before"];
  const taken = (head: Head): unknown => head.kind === "claim" && (before = head);
  for (;;) {
    await replay(store, history, taken, isEnd);
    if (claimant === undefined || history.next.writer === claimant.writer) break;
    if ((claimant.after ?? history.next.writer) !== history.next.writer)
      throw new UserError(`${store.name} was attached by ${before?.owner ?? "another process"} meanwhile`);
    await claimant.beforeClaim?.(history);
    await claim(store, history, claimant);
    await replay(store, history, (head) => head.writer !== claimant.writer && taken(head), isEnd);
  }
  const { oldest = 0, keepMs = 0 } = root ?? {};
  return { history, checkpoint, checkpointed, oldest, keepMs, before };
}

/** Returns false when a page was removed meanwhile. */
export async function loadPages(
  store: ObjectStore,
  pages: readonly string[],
  history: History,
): Promise<boolean> {
  for (let at = 0; at < pages.length; at += PAGES_AT_ONCE) {
    const keys = pages.slice(at, at + PAGES_AT_ONCE);
    const loaded = await Promise.all(keys.map((key) => loadPage(store, key, history)));
    if (loaded.includes(false)) return false;
  }
  return true;
}

async function loadPage(store: ObjectStore, key: string, { map }: History): Promise<boolean> {
  return undamaged(store.name, key, async () => {
    const page = await store.get(key, 0, PAGE_BYTES_MAX);
    if (page === undefined) return false;
    try {
      map.load(page);
    } catch (error) {
      throw new DamageError(error instanceof Error ? error.message : String(error));
    }
    return true;
  });
}

/** Creates a claim at the next place of the log. The caller then reads on to see whether it succeeded. */
async function claim(
  store: ObjectStore,
  { disk, next }: History,
  { writer, owner }: Claimant,
): Promise<void> {
  const head = { disk: disk.id, number: next.number, time: Date.now(), writer, owner };
  await store.create(logKey(next), encodeClaim(head));
}

/** Reads the rest of the log, several objects at once. */
async function replay(
  store: ObjectStore,
  history: History,
  seen: (head: Head) => void,
  isBeyond: (head: Head) => boolean,
): Promise<void> {
  let ahead: { readonly place: LogPlace; readonly head: Promise<Head | undefined> }[] = [];
  for (let width = 1; ; width = Math.min(AHEAD_MAX, width * 2)) {
    const { number, writer } = history.next;
    if (ahead[0]?.place.writer !== writer) ahead = [];
    while (ahead.length < width) {
      const place = { number: number + ahead.length, writer };
      const head = readHead(store, history.disk.id, place);
      // The replay may end before anything awaits this read.
      head.catch(() => undefined);
      ahead.push({ place, head });
    }
    const { place, head } = ahead.shift() ?? {};
    const found = await head;
    if (found === undefined || place === undefined || isBeyond(found)) return;
    await undamaged(store.name, logKey(place), async () => history.apply(found));
    seen(found);
  }
}
