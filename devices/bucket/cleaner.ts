/**
 * Cleaning: writes the live blocks of the emptiest segments again, so that the next checkpoint removes those segments.
 * The blocks are written like any others, so nothing else needs to know of cleaning.
 */
import { type ChunkReader, GoneError } from "./chunk-reader.ts";
import { ENTRY, HEAD_BYTES } from "./format.ts";
import type { History } from "./history.ts";
import { readHead } from "./log-reader.ts";
import type { KeptNumbers } from "./kept-state.ts";
import type { LogWriter } from "./log-writer.ts";
import type { Pace } from "./pace.ts";
import { CHUNK_BYTES } from "./packing.ts";
import { BLOCK_BYTES, CHUNK_BLOCKS, type ObjectStore, SEGMENT_BLOCKS_MAX } from "./parts.ts";

/** Cleaning begins when less than this part of the segments is live, and ends when more than END is. */
const BEGIN = 0.7;
const END = 0.8;
/** Below this live part, cleaning goes on without a rest, with more groups at once. */
const BEHIND = 0.6;
const AT_ONCE = 6;
/** A segment with a larger live part is not emptied. */
const SPARSE = 0.75;
/** Segments emptied together, if their live blocks fit into one: small flushes make many small ones. */
const GROUP_MAX = 16;
/** Chunks in memory at once, 64 MiB: one live block brings its whole chunk. */
const CHUNKS_MAX = 1024;

/** A segment to be emptied. */
interface Sparse {
  readonly index: number;
  readonly number: number;
  readonly live: number;
}

export class Cleaner {
  #running: Promise<void> | undefined;

  /**
   * @param kept segments that snapshots need: emptying one would not remove it, nor one of another disk.
   * @param segmentsMin with fewer segments, cleaning is not worth it.
   * @param pace of reading; no more is written than is read.
   */
  constructor(
    readonly store: ObjectStore,
    readonly history: History,
    readonly writer: LogWriter,
    readonly reader: ChunkReader,
    readonly kept: () => KeptNumbers,
    readonly segmentsMin: number,
    readonly pace: Pace,
  ) {}

  /**
   * Cleans while it is worth it.
   * @param segmentsMin in place of the constructor's.
   * @throws ErrnoError, StoreError
   */
  run(segmentsMin = this.segmentsMin): Promise<void> {
    this.#running ??= this.#run(segmentsMin).finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #run(segmentsMin: number): Promise<void> {
    const { segments, live } = this.#count();
    const full = this.writer.options.segmentBlocks;
    if (segments < segmentsMin || live > segments * full * BEGIN) return;
    // Each emptied segment removes one and adds the part of it that was live.
    const surplus = segments - live / (full * END);
    if (surplus < 1) return;
    /** Each group with the most chunks it has in memory. */
    const running = new Map<Promise<void>, number>();
    const failures: unknown[] = [];
    for (const group of this.#groups(surplus, full)) {
      // Looking at every segment takes time: once per group.
      const isBehind = this.#isBehind;
      const chunks = this.#chunksIn(group);
      while (isFull(running, chunks, isBehind ? AT_ONCE : 1)) await Promise.race(running.keys());
      if (this.writer.signal.aborted || failures.length > 0) break;
      const task = this.#emptyGroup(group, isBehind)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => running.delete(task));
      running.set(task, chunks);
    }
    await Promise.all(running.keys());
    if (failures.length > 0) throw failures[0];
  }

  async #emptyGroup(group: readonly Sparse[], isBehind: boolean): Promise<void> {
    const begun = performance.now();
    await Promise.all(group.map((sparse) => this.#empty(sparse)));
    // Leave half of the time to others, unless garbage grows faster than it is removed.
    if (!isBehind) await Bun.sleep(performance.now() - begun);
  }

  /** Groups of segments to empty so that `surplus` segments fewer remain. */
  *#groups(surplus: number, full: number): Generator<Sparse[]> {
    let left = surplus;
    let group: Sparse[] = [];
    let [live, chunks] = [0, 0];
    for (const sparse of this.#sparsest()) {
      if (left <= 0) break;
      const more = this.#chunksOf(sparse);
      if (group.length === GROUP_MAX || live + sparse.live > full || chunks + more > CHUNKS_MAX) {
        yield group;
        [group, live, chunks] = [[], 0, 0];
      }
      group.push(sparse);
      live += sparse.live;
      chunks += more;
      left -= 1 - sparse.live / full;
    }
    if (group.length > 0) yield group;
  }

  get #isBehind(): boolean {
    const { segments, live } = this.#count();
    return live < segments * this.writer.options.segmentBlocks * BEHIND;
  }

  #count(): { readonly segments: number; readonly live: number } {
    let [segments, blocks] = [0, 0];
    for (const { live } of this.#used()) {
      segments += 1;
      blocks += live;
    }
    return { segments, live: blocks };
  }

  /** Segments in the bucket with few live blocks, the emptiest first. */
  #sparsest(): Sparse[] {
    const { committed, options } = this.writer;
    const isSparse = ({ number, live }: Sparse): boolean =>
      number <= committed && live < options.segmentBlocks * SPARSE;
    return [...this.#used()].filter(isSparse).toSorted((a, b) => a.live - b.live);
  }

  /** Segments with live blocks that could be removed without them. */
  *#used(): Iterable<Sparse> {
    const { history, reader } = this;
    const kept = this.kept();
    for (const index of history.map.segments()) {
      const live = history.map.liveIn(index);
      const number = history.map.segmentNumber(index) ?? Infinity;
      if (live > 0 && reader.sources.isOwn(number) && !kept.has(number)) yield { index, number, live };
    }
  }

  async #empty(sparse: Sparse): Promise<void> {
    const { store, history, writer } = this;
    const place = history.placeOf(sparse.number);
    const head = await readHead(store, history.disk.id, place, writer.signal);
    // The segment has no live blocks left, and was removed.
    if (head?.kind !== "segment") return;
    await this.pace.take(HEAD_BYTES + this.#chunksOf(sparse, head.slots) * CHUNK_BYTES, writer.signal);
    let slot = 0;
    const moves: Promise<void>[] = [];
    for (const { kind, block, count } of head.entries) {
      if (kind !== ENTRY.data) continue;
      for (let at = 0; at < count;) {
        const run = Math.min(count - at, CHUNK_BLOCKS - ((slot + at) % CHUNK_BLOCKS));
        if (this.#hasLive(sparse, block + at, slot + at, run))
          moves.push(this.#move(sparse, block + at, slot + at, run));
        at += run;
      }
      slot += count;
    }
    await Promise.all(moves);
  }

  #chunksIn(group: readonly Sparse[]): number {
    return group.reduce((sum, sparse) => sum + this.#chunksOf(sparse), 0);
  }

  /** The most chunks that can contain live blocks. */
  #chunksOf({ live }: Sparse, slots = SEGMENT_BLOCKS_MAX): number {
    return Math.min(live, Math.ceil(slots / CHUNK_BLOCKS));
  }

  /** Writes those blocks of the range again that still lie there. The range is within one chunk. */
  async #move(sparse: Sparse, block: number, slot: number, count: number): Promise<void> {
    const chunk = Math.floor(slot / CHUNK_BLOCKS);
    const bytes = await this.#load(sparse, chunk);
    if (bytes === undefined) return;
    const first = slot - chunk * CHUNK_BLOCKS;
    for (let at = 0; at < count;) {
      const run = this.#liveRun(sparse, block + at, slot + at, count - at);
      if (!this.#isLive(sparse, block + at, slot + at)) {
        at += run;
        continue;
      }
      // No await between the look at the map and this: the blocks are still live.
      const source = bytes.subarray((first + at) * BLOCK_BYTES, (first + at + run) * BLOCK_BYTES);
      const taken = this.writer.offer(source, block + at) / BLOCK_BYTES;
      at += taken;
      if (taken < run) await this.writer.roomy();
    }
  }

  /** Undefined when the segment has no live blocks left, and was removed. */
  async #load(sparse: Sparse, chunk: number): Promise<Uint8Array | undefined> {
    try {
      return await this.reader.load(this.history.placeOf(sparse.number), chunk);
    } catch (error) {
      if (!(error instanceof GoneError)) throw error;
      if (this.history.map.segmentNumber(sparse.index) === sparse.number) throw error;
      return undefined;
    }
  }

  #hasLive(sparse: Sparse, block: number, slot: number, count: number): boolean {
    const dead = this.#isLive(sparse, block, slot) ? 0 : this.#liveRun(sparse, block, slot, count);
    return dead < count;
  }

  /** How many blocks are in the same state as the first: they still lie there, or no longer do. */
  #liveRun(sparse: Sparse, block: number, slot: number, count: number): number {
    const isLive = this.#isLive(sparse, block, slot);
    let run = 1;
    while (run < count && this.#isLive(sparse, block + run, slot + run) === isLive) run += 1;
    return run;
  }

  /** The index may belong to another segment by now. */
  #isLive({ index, number }: Sparse, block: number, slot: number): boolean {
    const { map } = this.history;
    map.find(block, 1);
    return map.foundIndex === index && map.foundSlot === slot && map.segmentNumber(index) === number;
  }
}

/** Whether a group with that many chunks must wait for those that are running. */
function isFull(running: ReadonlyMap<unknown, number>, chunks: number, tasksMax: number): boolean {
  if (running.size === 0) return false;
  const reading = running.values().reduce((sum, each) => sum + each, chunks);
  return running.size >= tasksMax || reading > CHUNKS_MAX;
}
