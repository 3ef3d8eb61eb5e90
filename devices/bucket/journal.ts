/**
 * Keeps what is written to a disk, and is not in the bucket yet, in a local file. A flush may end there: on the same
 * machine that is as good. After the end of the process, journal-recovery.ts handles what the file contains.
 *
 * Changes are copied to a batch in memory, which is written when a request waits for it, or when it has many blocks.
 * While a batch is written and synced the next one is filled, so one fdatasync serves all flushes that came before it.
 * An area is reused once its segment is in the bucket.
 *
 * A journal that fails, or does not answer, takes nothing more until the disk is attached again. Its contents stay a
 * prefix of what was written, and flushes wait for the bucket instead.
 */
import { BatchBuffer, HEADER_BLOCKS, type JournalLayout } from "./journal-format.ts";
import type { JournalStorage } from "./journal-file.ts";
import type { LogWriter } from "./log-writer.ts";
import { BLOCK_BYTES, type NotesRoom, type WriteNotes } from "./parts.ts";

/** 1 MiB: a batch with this many blocks is written even if no request waits for it. */
const MANY_BLOCKS = 256;
const CLOSE_MS_MAX = 5000;

interface Waiter {
  readonly batch: number;
  readonly done: () => void;
}

export interface JournalOptions {
  readonly layout: JournalLayout;
  /** The writer of the log that makes these changes. */
  readonly writer: string;
  readonly log: (line: string) => void;
}

export class Journal implements WriteNotes {
  /** One batch is being filled. The other is being written, or is empty. */
  #filling: BatchBuffer;
  #other: BatchBuffer;
  /** Batches of this process, counted from 1: ended, written, on stable storage. Some need not be written. */
  #ended = 0;
  #written = 0;
  #synced = 0;
  /** The last batch that a request waits for: to be written, or to be synced. */
  #writeWanted = 0;
  #syncWanted = 0;
  readonly #writeWaiters: Waiter[] = [];
  readonly #syncWaiters: Waiter[] = [];
  /** Batches in the file: how many, and how many of them are on stable storage. */
  #sequence = 0;
  #sequenceSynced = 0;
  /** The segment of the last one on stable storage. */
  #numberSynced = 0;
  /** The segment whose area is being written, and how many blocks of it are. */
  #number = 0;
  #at = 0;
  #committed = 0;
  #room = Promise.withResolvers<void>();
  #isRunning = false;
  #running: Promise<void> | undefined;
  #isFailed = false;

  constructor(
    readonly storage: JournalStorage,
    readonly options: JournalOptions,
  ) {
    const { segmentBlocks } = options.layout;
    this.#filling = new BatchBuffer(segmentBlocks);
    this.#other = new BatchBuffer(segmentBlocks);
  }

  roomFor(number: number, blocks: number): NotesRoom {
    if (this.#isFailed) return "now";
    const filled =
      this.#filling.number === number && this.#filling.changes > 0 ? 1 + this.#filling.blocks : 0;
    const used = filled + (this.#number === number ? this.#at : 0);
    if (used + 1 + blocks > this.options.layout.areaBlocks) return "never";
    if (this.#filling.hasRoomFor(number, blocks)) return "now";
    this.#want(this.#ended + 1);
    return this.#filling.hasRoomFor(number, blocks) ? "now" : "later";
  }

  roomy(): Promise<void> {
    return this.#room.promise;
  }

  note(number: number, block: number, count: number, data?: Uint8Array): void {
    if (this.#isFailed) return;
    this.#filling.add(number, block, count, data);
    if (this.#filling.blocks >= MANY_BLOCKS) this.#want(this.#ended + 1);
  }

  committed(number: number): void {
    this.#committed = number;
  }

  /** Done when everything written before outlives this process. @throws ErrnoError */
  keep(log: LogWriter): void | Promise<void> {
    return this.#reach(log, this.#written, this.#writeWaiters, (batch) => this.#want(batch));
  }

  /** Done when everything written before is on stable storage, or in the bucket. @throws ErrnoError */
  flush(log: LogWriter): void | Promise<void> {
    return this.#reach(log, this.#synced, this.#syncWaiters, (batch) => {
      this.#syncWanted = batch;
      this.#want(batch);
    });
  }

  /** Writes nothing from then on. Does not wait for a disk that hangs. */
  async close(): Promise<void> {
    this.#giveUp();
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, CLOSE_MS_MAX);
    const closed = Promise.resolve(this.#running).then(() => this.storage.close());
    await Promise.race([closed, late.promise]);
    clearTimeout(timer);
  }

  #reach(
    log: LogWriter,
    reached: number,
    waiters: Waiter[],
    want: (batch: number) => void,
  ): void | Promise<void> {
    log.mustBeSound();
    if (log.newest <= log.committed) return;
    if (this.#isFailed) return log.flush();
    const batch = this.#filling.changes > 0 ? this.#ended + 1 : this.#ended;
    if (batch <= reached) return;
    const done = new Promise<void>((resolve) => waiters.push({ batch, done: resolve }));
    want(batch);
    return this.#reached(log, done);
  }

  async #reached(log: LogWriter, done: Promise<void>): Promise<void> {
    await done;
    log.mustBeSound();
    if (this.#isFailed) await log.flush();
  }

  #want(batch: number): void {
    this.#writeWanted = Math.max(this.#writeWanted, batch);
    if (!this.#isRunning) this.#running = this.#run();
  }

  /** Runs one operation at a time: a disk that hangs then occupies only one of the few threads. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    while (!this.#isFailed) {
      if (this.#writeWanted > this.#ended && this.#filling.changes > 0) await this.#write();
      else if (this.#syncWanted > this.#synced) await this.#sync();
      else break;
    }
    this.#isRunning = false;
  }

  async #write(): Promise<void> {
    const batch = this.#filling;
    this.#filling = this.#other;
    this.#other = batch;
    this.#ended += 1;
    const { number, blocks } = batch;
    // The bucket already has it.
    const isNeeded = number > this.#committed;
    if (isNeeded) {
      const before = this.#number;
      if (before !== number) this.#at = 0;
      this.#number = number;
      const { areas, areaBlocks } = this.options.layout;
      if (number - areas > this.#committed) throw new Error(`segment ${number} has no area yet`);
      const at = this.#at;
      this.#at += 1 + blocks;
      this.#sequence += 1;
      const { writer } = this.options;
      const synced = { synced: this.#sequenceSynced, syncedNumber: this.#numberSynced };
      const place = { writer, number, sequence: this.#sequence, before, ...synced, at };
      const offset = (HEADER_BLOCKS + (number % areas) * areaBlocks + at) * BLOCK_BYTES;
      await this.#patiently(this.storage.write(batch.encode(place), offset));
    }
    batch.clear();
    if (this.#isFailed) return;
    this.#written = this.#ended;
    finish(this.#writeWaiters, this.#written);
    this.#roomAgain();
  }

  async #sync(): Promise<void> {
    const written = this.#written;
    const sequence = this.#sequence;
    const number = this.#number;
    await this.#patiently(this.storage.datasync());
    if (this.#isFailed) return;
    this.#synced = written;
    this.#sequenceSynced = sequence;
    this.#numberSynced = number;
    finish(this.#syncWaiters, written);
  }

  async #patiently(operation: Promise<void>): Promise<void> {
    const timer = setTimeout(() => this.#fail("does not answer"), this.storage.patienceMs);
    try {
      await operation;
    } catch (error) {
      this.#fail(`fails: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  #fail(why: string): void {
    if (this.#isFailed) return;
    const { log } = this.options;
    log(
      `the journal in ${this.storage.name} ${why}; flushes wait for the bucket until the disk is attached again`,
    );
    this.#giveUp();
  }

  #giveUp(): void {
    this.#isFailed = true;
    for (const waiters of [this.#writeWaiters, this.#syncWaiters]) finish(waiters, Infinity);
    this.#roomAgain();
  }

  #roomAgain(): void {
    this.#room.resolve();
    this.#room = Promise.withResolvers();
  }
}

/** Waiters are in the order of their batches. */
function finish(waiters: Waiter[], batch: number): void {
  for (let first = waiters[0]; first !== undefined && first.batch <= batch; first = waiters[0]) {
    waiters.shift();
    first.done();
  }
}
