/**
 * A disk in a bucket: a log of segments, each an object that is written once. A write is in memory when it is answered,
 * and in the bucket when a flush is done. What the bucket holds is always a prefix of what was written, in order.
 */
import { type BlockDevice, ErrnoError, type Extent, UserError } from "tsbuse";
import { ChunkCache } from "./cache.ts";
import { Checkpointer, type Interval } from "./checkpoint.ts";
import { ChunkReader, GoneError } from "./chunk-reader.ts";
import { type LogPlace, logKey } from "./format.ts";
import { Cleaner } from "./cleaner.ts";
import type { History } from "./history.ts";
import type { Journal } from "./journal.ts";
import type { JournalStorage } from "./journal-file.ts";
import { LogWriter, type WriterOptions } from "./log-writer.ts";
import type { Opened } from "./opening.ts";
import { noteEnd } from "./owner.ts";
import { Pace } from "./pace.ts";
import { CHUNK_BYTES } from "./packing.ts";
import { BLOCK_BYTES, type ChunkCacheShape, CHUNK_BLOCKS, type ObjectStore } from "./parts.ts";
import type { Point } from "./points.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { ReaderMark } from "./reader-mark.ts";
import { Retention } from "./retention.ts";
import { type Beside, Sources } from "./sources.ts";
import { StoreError } from "./store-error.ts";

export interface BucketOptions {
  /** Create a disk of this many bytes. */
  readonly create?: number | undefined;
  /** Only read the disk as it is now: its owner keeps it. */
  readonly readOnly?: boolean;
  /** Only read the disk as it was at this point. */
  readonly at?: Point | undefined;
  /** How long to keep every state of the disk, in milliseconds. Default: as set before. */
  readonly keepMs?: number | undefined;
  /** The most bytes per second that cleaning reads, and that it writes. */
  readonly cleanBandwidth?: number | undefined;
  /** Opens the objects below another prefix of the same bucket. Without it a clone does not open. */
  readonly beside?: Beside | undefined;
  /** Take the disk over only from this writer. */
  readonly after?: string | undefined;
  /** Answer a write only once it outlives the process: for a device that others take over after a kill. */
  readonly writeThrough?: boolean;
  readonly cache?: ChunkCacheShape | undefined;
  readonly writer?: Partial<WriterOptions>;
  /** A flush is done once it is in this journal. The device closes the journal. */
  readonly journal?: JournalStorage | undefined;
  readonly interval?: Interval;
  readonly log: (line: string) => void;
}

/** The default options. */
export const WRITER: WriterOptions = { segmentBlocks: 2048, puts: 6, compress: true, idleMs: 5000 };
const INTERVAL: Interval = { segments: 64, times: 8, segmentsMax: 16_384 };
const CACHE_BYTES = 64 * 2 ** 20;
/** 32 MiB. */
const AHEAD_BLOCKS = 8192;
const EXTENTS_MAX = 1024;
/** How often to ask the map again when a segment that it named has gone. */
const TRIES = 8;

/** @param journal where the journal is; undefined without one. */
export function identityOf(store: ObjectStore, disk: string, journal: string | undefined): string {
  return `${store.name} ${disk}${journal === undefined ? "" : ` with the journal in ${journal}`}`;
}

/** What a disk is made of. */
interface Parts {
  /** In a writer. */
  readonly opened?: Opened;
  readonly journal?: Journal;
  /** In a reader. */
  readonly mark?: ReaderMark | undefined;
}

export class BucketDisk implements BlockDevice {
  readonly blockSize = BLOCK_BYTES;
  readonly size: number;
  readonly identity?: string;
  readonly history: History;
  readonly mark: ReaderMark | undefined;
  readonly journal: Journal | undefined;
  /** Undefined, like all methods that change data, when the device is read-only. */
  readonly write?: (source: Uint8Array, offset: number) => void | Promise<void>;
  readonly flush?: () => void | Promise<void>;
  readonly trim?: (offset: number, length: number) => void | Promise<void>;
  readonly writeZeroes?: (offset: number, length: number) => void | Promise<void>;
  readonly #reader: ChunkReader;
  readonly #cache: ChunkCacheShape;
  readonly #log: (line: string) => void;
  readonly #writeThrough: boolean;
  readonly #writer: LogWriter | undefined;
  readonly #checkpointer: Checkpointer | undefined;
  readonly #cleaner: Cleaner | undefined;
  readonly #readAhead: ReadAhead;

  constructor(
    readonly store: ObjectStore,
    history: History,
    options: BucketOptions,
    { opened, mark, journal }: Parts,
  ) {
    const { writeThrough = false, cache, writer, interval = INTERVAL, log } = options;
    this.history = history;
    this.mark = mark;
    this.journal = journal;
    this.size = history.disk.size;
    this.#log = log;
    this.#cache = cache ?? ChunkCache.inMemory(CACHE_BYTES);
    this.#reader = new ChunkReader(new Sources(store, history.disk, options.beside));
    this.#writeThrough = writeThrough;
    this.#readAhead = new ReadAhead({ blocks: history.map.blocks, aheadMax: AHEAD_BLOCKS });
    // Without write-through, writes that were answered but not flushed are lost with the process.
    const identity = identityOf(store, history.disk.id, journal?.storage.name);
    if (options.at !== undefined) this.identity = `${identity} at ${history.next.number - 1}`;
    else if (writeThrough || opened === undefined) this.identity = identity;
    if (opened === undefined) return;
    const { checkpoint, checkpointed, oldest } = opened;
    const written = { ...WRITER, ...writer, notes: journal };
    const retention = new Retention(store, options.keepMs ?? opened.keepMs, oldest);
    this.#writer = new LogWriter(store, history.disk.id, history.map, history.next, written, this.#committed);
    const checkpointer = new Checkpointer(
      store,
      history,
      this.#writer,
      interval,
      retention,
      checkpoint,
      checkpointed,
    );
    this.#checkpointer = checkpointer;
    this.#cleaner = new Cleaner(
      store,
      history,
      this.#writer,
      this.#reader,
      () => checkpointer.kept,
      interval.segments,
      new Pace(options.cleanBandwidth),
    );
    this.write = this.#write;
    this.flush = this.#flush;
    this.trim = this.#clear;
    this.writeZeroes = this.#clear;
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    this.#writer?.mustBeSound();
    const [first, count] = [offset / BLOCK_BYTES, target.length / BLOCK_BYTES];
    const done = this.#read(target, first);
    const ahead = this.#readAhead.note(first, count);
    if (ahead > 0) this.#fetchAhead(this.#readAhead.aheadBlock, ahead);
    return done;
  }

  extents(offset: number, length: number): readonly Extent[] {
    const { map } = this.history;
    const extents: Extent[] = [];
    const end = (offset + length) / BLOCK_BYTES;
    for (let block = offset / BLOCK_BYTES; block < end && extents.length < EXTENTS_MAX;) {
      const count = map.find(block, end - block);
      const isHole = map.foundIndex < 0;
      extents.push({ length: count * BLOCK_BYTES, hole: isHole, zero: isHole });
      block += count;
    }
    return extents;
  }

  /** Makes a checkpoint now. */
  async checkpoint(): Promise<void> {
    await this.#writer?.flush();
    await this.#checkpointer?.make();
  }

  /** Empties sparse segments, and removes what nothing needs. @throws ErrnoError, StoreError */
  async clean(): Promise<void> {
    // The cleaner relies on the snapshots that the sweep after a checkpoint found.
    await this.checkpoint();
    await this.#cleaner?.run(2);
    await this.checkpoint();
  }

  async close(): Promise<void> {
    try {
      await this.checkpoint();
      if (this.#writer !== undefined) await noteEnd(this.store, this.#writer.place.writer);
    } finally {
      this.#writer?.close();
      this.#reader.close();
      await this.journal?.close();
      await this.#cache.close();
      await this.mark?.close();
    }
  }

  /** Returns at once for blocks in memory and holes, and a promise for the rest. */
  #read(target: Uint8Array, first: number, tries = 1): void | Promise<void> {
    const { map } = this.history;
    const loads: Promise<void>[] = [];
    const count = target.length / BLOCK_BYTES;
    for (let done = 0; done < count;) {
      const run = map.find(first + done, count - done);
      const part = target.subarray(done * BLOCK_BYTES, (done + run) * BLOCK_BYTES);
      const resident = this.#writer?.resident.get(map.foundIndex);
      const at = map.foundSlot * BLOCK_BYTES;
      if (map.foundIndex < 0) part.fill(0);
      else if (resident !== undefined) part.set(resident.subarray(at, at + part.length));
      else loads.push(this.#load(part, map.foundIndex, map.foundSlot));
      done += run;
    }
    if (loads.length === 0) return;
    return Promise.all(loads).then(
      () => undefined,
      (error: unknown) => this.#readAgain(error, target, first, tries),
    );
  }

  /** A segment may have been emptied and removed after the map was asked. */
  async #readAgain(error: unknown, target: Uint8Array, first: number, tries: number): Promise<void> {
    const isGone = error instanceof GoneError;
    // Another writer may have removed it, if that one now owns the disk.
    if (isGone) await this.#writer?.mustOwn();
    if (!isGone || tries === TRIES) throw failureOf(error, this.write === undefined);
    return this.#read(target, first, tries + 1);
  }

  async #load(target: Uint8Array, index: number, slot: number): Promise<void> {
    const place = this.#placeOf(index);
    const key = logKey(place);
    const end = slot + target.length / BLOCK_BYTES;
    const parts: Promise<void>[] = [];
    for (let at = slot; at < end;) {
      const chunk = Math.floor(at / CHUNK_BLOCKS);
      const stop = Math.min(end, (chunk + 1) * CHUNK_BLOCKS);
      const part = target.subarray((at - slot) * BLOCK_BYTES, (stop - slot) * BLOCK_BYTES);
      const load = (): Promise<Uint8Array> => this.#reader.load(place, chunk);
      parts.push(this.#cache.read(`${key}/${chunk}`, at * BLOCK_BYTES - chunk * CHUNK_BYTES, part, load));
      at = stop;
    }
    await Promise.all(parts);
  }

  #fetchAhead(first: number, count: number): void {
    const { map } = this.history;
    for (let done = 0; done < count;) {
      const run = map.find(first + done, count - done);
      const { foundIndex, foundSlot } = map;
      done += run;
      if (foundIndex < 0 || this.#writer?.resident.has(foundIndex) === true) continue;
      const place = this.#placeOf(foundIndex);
      const last = Math.floor((foundSlot + run - 1) / CHUNK_BLOCKS);
      for (let chunk = Math.floor(foundSlot / CHUNK_BLOCKS); chunk <= last; chunk += 1)
        this.#cache.fetchAhead(`${logKey(place)}/${chunk}`, () => this.#reader.load(place, chunk));
    }
  }

  #placeOf(index: number): LogPlace {
    const number = this.history.map.segmentNumber(index);
    if (number === undefined) throw new Error(`the map names index ${index}, which no segment has`);
    return this.history.placeOf(number);
  }

  #write(source: Uint8Array, offset: number): void | Promise<void> {
    return this.#through(this.#writer?.write(source, offset / BLOCK_BYTES));
  }

  #clear(offset: number, length: number): void | Promise<void> {
    return this.#through(this.#writer?.clear(offset / BLOCK_BYTES, length / BLOCK_BYTES));
  }

  #through(done: void | Promise<void>): void | Promise<void> {
    if (!this.#writeThrough) return done;
    return done === undefined ? this.#keep() : done.then(() => this.#keep());
  }

  /** Done when what was written outlives the process. */
  #keep(): void | Promise<void> {
    const writer = this.#writer;
    return this.journal === undefined || writer === undefined ? writer?.flush() : this.journal.keep(writer);
  }

  #flush(): void | Promise<void> {
    const writer = this.#writer;
    return this.journal === undefined || writer === undefined ? writer?.flush() : this.journal.flush(writer);
  }

  readonly #committed = (): void => {
    if (this.#checkpointer?.isDue !== true) return;
    this.#tidy(this.#checkpointer).catch((error: unknown) => {
      // Requests report what ended the log, and an end by closing is not a failure.
      if (error instanceof ErrnoError || this.#writer?.signal.aborted === true) return;
      this.#log(`${this.store.name} is not cleaned: ${String(error)}`);
    });
  };

  async #tidy(checkpointer: Checkpointer): Promise<void> {
    await checkpointer.make();
    await this.#cleaner?.run();
  }
}

function failureOf(error: unknown, isReadOnly: boolean): unknown {
  if (error instanceof StoreError) return new ErrnoError("EIO", error.message, { cause: error });
  if (error instanceof GoneError && isReadOnly)
    return new ErrnoError(
      "EIO",
      `${error.message}: the disk as it was is not kept any more; attach it again`,
    );
  return error instanceof GoneError || error instanceof UserError
    ? new ErrnoError("EIO", `${error.message}: the disk is damaged, or was changed by another program`)
    : error;
}
