/** What a bucket contains of a disk, for reports: changes nothing, and keeps nothing from removal. */
import { CLAIM_BYTES, placeOf } from "./format.ts";
import { KeptState } from "./kept-state.ts";
import { findDisk, openDisk, type Opened } from "./opening.ts";
import { type Owner, ownerOf } from "./owner.ts";
import { BLOCK_BYTES, type Listed, type ObjectStore } from "./parts.ts";
import { readMarks } from "./reader-mark.ts";
import { readRoot } from "./records.ts";
import { snapshots } from "./snapshots.ts";

export interface Tally {
  objects: number;
  bytes: number;
}

export interface Summary {
  readonly id: string;
  /** Bytes in the disk, and in its mapped blocks. */
  readonly size: number;
  readonly live: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly owner: Owner | undefined;
  /** The name of the current writer. */
  readonly writer: string;
  /** The last number of the log. */
  readonly number: number;
  /** The number from which on every state can be opened, and its time; undefined if not known yet. */
  readonly oldest: { readonly number: number; readonly time: number } | undefined;
  /** How long every state is kept, in milliseconds. */
  readonly keepMs: number;
  /** All objects. */
  readonly stored: Tally;
  /** Segments with live blocks; segments kept for another reason; and all others. */
  readonly segments: { readonly live: Tally; readonly kept: Tally; readonly garbage: Tally };
  readonly snapshots: readonly SnapshotSummary[];
  /** In a clone: prefixes of the disks that it shares segments with. */
  readonly origins: readonly string[];
}

interface SnapshotSummary {
  readonly name: string;
  readonly number: number;
  readonly time: number;
  /** Bytes of mapped blocks. */
  readonly live: number;
  /** The prefix of the clone that it keeps segments for. */
  readonly clone: string | undefined;
}

/** Costs as much as opening the disk and listing its objects. @throws UserError */
export async function summarize(store: ObjectStore): Promise<Summary> {
  const disk = await findDisk(store);
  const opened = await openDisk(store, disk);
  const { history, keepMs } = opened;
  const found: SnapshotSummary[] = [];
  const states: KeptState[] = [];
  for await (const { name, record } of snapshots(store)) {
    const { number, time, live, clone } = record;
    found.push({ name, number, time, live, clone: clone?.prefix });
    states.push(new KeptState(record));
  }
  return {
    id: disk.id,
    size: disk.size,
    live: history.map.liveBlocks * BLOCK_BYTES,
    created: disk.created,
    owner: await ownerOf(store, opened),
    writer: history.next.writer,
    number: history.next.number - 1,
    oldest: await oldestOf(store, opened),
    keepMs,
    ...(await tally(store, opened, states)),
    snapshots: found,
    origins: (disk.origins ?? []).map(({ prefix }) => prefix),
  };
}

async function oldestOf(
  store: ObjectStore,
  { oldest, checkpoint, history }: Opened,
): Promise<Summary["oldest"]> {
  if (oldest === 0) return { number: 0, time: history.disk.created };
  const root = oldest > checkpoint ? undefined : await readRoot(store, oldest);
  return root === undefined ? undefined : { number: root.through, time: root.time };
}

async function tally(
  store: ObjectStore,
  opened: Opened,
  states: readonly KeptState[],
): Promise<Pick<Summary, "stored" | "segments">> {
  const { history, oldest, keepMs } = opened;
  const base = keepMs === 0 ? undefined : await readRoot(store, oldest);
  const past = base === undefined ? undefined : new KeptState(base);
  const keptFrom = keepMs === 0 ? Infinity : (base?.number ?? 0);
  const { upTo } = await readMarks(store);
  const [stored, live, kept, garbage] = [none(), none(), none(), none()];
  const kindOf = ({ key, size }: Listed): Tally | undefined => {
    const place = placeOf(key);
    if (place === undefined || size === CLAIM_BYTES) return undefined;
    const index = history.map.segmentIndex(place.number);
    const isOurs = history.placeOf(place.number).writer === place.writer;
    // The owner goes on writing meanwhile.
    const isNew = place.number >= history.next.number;
    if (isOurs && (isNew || (index !== undefined && history.map.liveIn(index) > 0))) return live;
    const isPast = place.number > keptFrom || past?.needs(place) === true;
    if (isPast || place.number <= upTo || states.some((state) => state.needs(place))) return kept;
    return garbage;
  };
  for await (const object of store.list("")) {
    add(stored, object);
    const kind = kindOf(object);
    if (kind !== undefined) add(kind, object);
  }
  return { stored, segments: { live, kept, garbage } };
}

function none(): Tally {
  return { objects: 0, bytes: 0 };
}

function add(sum: Tally, { size }: Listed): void {
  sum.objects += 1;
  sum.bytes += size;
}
