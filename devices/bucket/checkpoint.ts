/**
 * Checkpoints: the map as pages in the bucket, so that opening reads little of the log. Each checkpoint then removes
 * the objects that are no longer needed.
 */
import { checkpointKey, MAP_PREFIX } from "./format.ts";
import type { History } from "./history.ts";
import { KeptNumbers, runsOf } from "./kept-state.ts";
import type { LogWriter } from "./log-writer.ts";
import type { ObjectStore } from "./parts.ts";
import { encodeRecord, readRoot, type RootRecord } from "./records.ts";
import type { Retention } from "./retention.ts";
import { sweep } from "./sweep.ts";

/** How many segments and bytes of the log make a new checkpoint due. */
export interface Interval {
  readonly segments: number;
  /** How many times the bytes of the checkpoint before: what it costs stays a small part of what is written. */
  readonly times: number;
  /** After this many segments one is due whatever it costs: each is read when the disk is opened. */
  readonly segmentsMax: number;
}

export class Checkpointer {
  /** The segments that snapshots keep, whatever has become of the disk. */
  kept = new KeptNumbers();
  #bytes = 0;
  #madeBefore = 0;
  #running: Promise<void> | undefined;

  /**
   * @param newest the number of the newest checkpoint.
   * @param covered the last number of the log that it contains.
   */
  constructor(
    readonly store: ObjectStore,
    readonly history: History,
    readonly writer: LogWriter,
    readonly interval: Interval,
    readonly retention: Retention,
    public newest: number,
    public covered: number,
  ) {}

  get isDue(): boolean {
    const { segments, times, segmentsMax } = this.interval;
    const behind = this.writer.committed - this.covered;
    const bytes = this.writer.made.bytes - this.#madeBefore;
    return behind >= segmentsMax || (behind >= segments && bytes >= this.#bytes * times);
  }

  /**
   * Makes a checkpoint, unless there is nothing new. Joins one that is being made.
   * @throws ErrnoError, StoreError
   */
  make(): Promise<void> {
    this.#running ??= this.#make().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #make(): Promise<void> {
    const { history, writer } = this;
    const number = writer.committed;
    if (number <= this.covered) return;
    const dead = deadSegments(history, number);
    const segments = runsOf(history.liveSegments(number));
    const made = writer.made.bytes;
    const { pages, bytes } = await this.#writePages(number);
    // Some pages contain blocks written meanwhile. Readers of these pages must find those segments in the log.
    await writer.flush();
    history.advance(writer.committed);
    const { turns } = history;
    const state = { number, through: writer.committed, turns, pages, segments, time: Date.now() };
    const root = await this.#publish(state);
    if (root === undefined) return;
    this.#bytes = bytes;
    this.#madeBefore = made;
    this.covered = number;
    for (const index of dead) history.map.removeSegment(index);
    history.forget();
    this.kept = await sweep(this.store, root, await this.retention.base(root, this.newest), writer.signal);
  }

  async #writePages(number: number): Promise<{ readonly pages: string[]; readonly bytes: number }> {
    const { store, history, writer } = this;
    const folder = `${MAP_PREFIX}${number.toString(16).padStart(12, "0")}.${writer.place.writer}`;
    const pages: string[] = [];
    let bytes = 0;
    for (const page of history.map.pages()) {
      const key = `${folder}/${pages.length}`;
      await store.create(key, page, writer.signal);
      pages.push(key);
      bytes += page.length;
    }
    return { pages, bytes };
  }

  /** Undefined when another writer has published a newer one: the disk now belongs to that writer. */
  async #publish(state: Omit<RootRecord, "oldest" | "keepMs">): Promise<RootRecord | undefined> {
    const { store, writer, retention } = this;
    for (;;) {
      const { keepMs } = retention;
      const root = { ...state, keepMs, oldest: await retention.choose(this.newest) };
      const result = await store.create(checkpointKey(this.newest + 1), encodeRecord(root), writer.signal);
      this.newest += 1;
      if (result === "created") return root;
      const found = await readRoot(store, this.newest);
      if (found === undefined) this.newest -= 1;
      else if (found.number === root.number && found.turns.at(-1)?.writer === root.turns.at(-1)?.writer)
        return found;
      else if (found.number > root.number) return undefined;
      else retention.raise(found.oldest);
    }
  }
}

/** Indexes of segments up to `number` of the log that have no live block. */
function deadSegments({ map }: History, number: number): number[] {
  const dead: number[] = [];
  for (const index of map.segments()) {
    const own = map.segmentNumber(index) ?? Infinity;
    if (own <= number && map.liveIn(index) === 0) dead.push(index);
  }
  return dead;
}
