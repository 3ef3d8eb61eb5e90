/**
 * Checkpoints: the map as pages in the bucket, so that opening reads but little of the log; and what no checkpoint
 * needs any more is removed after each.
 */
import { checkpointKey, CLAIM_BYTES, LOG_PREFIX, MAP_PREFIX, placeOf } from "./format.ts";
import type { History } from "./history.ts";
import type { LogWriter } from "./log-writer.ts";
import type { ObjectStore } from "./parts.ts";
import { readMarks } from "./reader-mark.ts";
import { encodeRecord, readRoot, type RootRecord } from "./records.ts";

/** Objects that are removed at once. */
const REMOVALS = 8;

/** Segments and bytes of the log after which there is to be a checkpoint. */
export interface Interval {
  readonly segments: number;
  /** So many times the bytes of the checkpoint before: what it costs stays a small part of what is written. */
  readonly times: number;
  /** After so many segments there is to be one whatever it costs: each is read when the disk is opened. */
  readonly segmentsMax: number;
}

export class Checkpointer {
  #bytes = 0;
  #madeBefore = 0;
  #running: Promise<void> | undefined;

  /**
   * @param newest the number of the newest checkpoint.
   * @param covered the log up to there is in it.
   */
  constructor(
    readonly store: ObjectStore,
    readonly history: History,
    readonly writer: LogWriter,
    readonly interval: Interval,
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
   * Makes a checkpoint, unless there is nothing new; one that is being made is joined.
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
    const made = writer.made.bytes;
    const { pages, bytes } = await this.#writePages(number);
    // Some pages have blocks that were written meanwhile: who reads them must find these in the log.
    await writer.flush();
    history.advance(writer.committed);
    const { turns } = history;
    const root = { number, turns, pages, time: Date.now() };
    if (!(await this.#publish(root))) return;
    this.#bytes = bytes;
    this.#madeBefore = made;
    this.covered = number;
    for (const index of dead) history.map.removeSegment(index);
    history.forget();
    await this.#sweep(root);
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

  /** False when another writer has made a newer one: the disk is its own now. */
  async #publish(root: RootRecord): Promise<boolean> {
    const body = encodeRecord(root);
    for (;;) {
      const result = await this.store.create(checkpointKey(this.newest + 1), body, this.writer.signal);
      this.newest += 1;
      if (result === "created") return true;
      const found = await readRoot(this.store, this.newest);
      if (found === undefined) this.newest -= 1;
      else if (found.number === root.number && found.turns.at(-1)?.writer === root.turns.at(-1)?.writer)
        return true;
      else if (found.number > root.number) return false;
    }
  }

  /** Removes what only earlier checkpoints needed, and what died with its writer. */
  async #sweep({ number, pages }: RootRecord): Promise<void> {
    const { store, history, writer } = this;
    const kept = new Set(pages);
    // A reader that makes its mark after this begins with this checkpoint, or a newer one.
    const { upTo, expired } = await readMarks(store, writer.signal);
    const gone = [...expired];
    for await (const { key } of store.list(MAP_PREFIX, undefined, writer.signal))
      if (!kept.has(key) && Number.parseInt(key.slice(MAP_PREFIX.length), 16) <= number) gone.push(key);
    for await (const { key, size } of store.list(LOG_PREFIX, undefined, writer.signal)) {
      const place = placeOf(key);
      if (place === undefined || size === CLAIM_BYTES) continue;
      // What follows may be read by who begins with this checkpoint.
      if (place.number > number) break;
      if (place.number <= upTo) continue;
      const isOurs = history.placeOf(place.number).writer === place.writer;
      if (!isOurs || history.map.segmentIndex(place.number) === undefined) gone.push(key);
    }
    while (gone.length > 0)
      await Promise.all(gone.splice(0, REMOVALS).map((key) => store.remove(key, writer.signal)));
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
