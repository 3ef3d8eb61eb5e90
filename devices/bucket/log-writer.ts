/**
 * Writes the log: gathers segments, seals them and sends several at once. A segment is committed once it and all before
 * it are in the bucket, so what is committed is always a prefix of what was written.
 */
import { ErrnoError, RepeatedError } from "tsbuse";
import { blocksForSegment, type ClaimHead, encodeSegment, type LogPlace, logKey } from "./format.ts";
import { Gathering } from "./gathering.ts";
import { readHead } from "./log-reader.ts";
import { pack } from "./packing.ts";
import {
  BLOCK_BYTES,
  type BlockMapShape,
  type NotesRoom,
  type ObjectStore,
  type WriteNotes,
} from "./parts.ts";

const AGAIN_MS = 200;

export interface WriterOptions {
  /** Blocks in a full segment. */
  readonly segmentBlocks: number;
  /** The most segments on their way at once. */
  readonly puts: number;
  readonly compress: boolean;
  /** How long after its first write to seal a segment that is not full, in milliseconds. */
  readonly idleMs: number;
  /**
   * Receives all that callers write and clear, but not what the cleaner writes: that does not change the disk's data.
   */
  readonly notes?: WriteNotes | undefined;
}

/** A segment on its way. */
interface Sealed {
  readonly number: number;
  readonly index: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  isDone: boolean;
}

interface Waiter {
  readonly number: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class LogWriter {
  /** The number of the last segment such that it and all before it are in the bucket. */
  committed: number;
  /** The blocks of segments that are not in the bucket yet, by the segments' indexes. */
  readonly resident = new Map<number, Uint8Array>();
  /** The bytes and the number of the objects that it has made. */
  readonly made = { bytes: 0, objects: 0 };
  readonly #abort = new AbortController();
  readonly #onTheirWay: Sealed[] = [];
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  readonly #waiters: Waiter[] = [];
  #gathering: Gathering | undefined;
  #room = Promise.withResolvers<void>();
  #nextNumber: number;
  /** Whether the segment being gathered must be sent as soon as possible. */
  #isWanted = false;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #failure: ErrnoError | undefined;

  /**
   * @param place where the next segment goes.
   * @param onCommitted is called whenever `committed` has grown.
   */
  constructor(
    readonly store: ObjectStore,
    readonly disk: string,
    readonly map: BlockMapShape,
    readonly place: LogPlace,
    readonly options: WriterOptions,
    readonly onCommitted: () => void = () => undefined,
  ) {
    this.#nextNumber = place.number;
    this.committed = place.number - 1;
    options.notes?.committed(this.committed);
  }

  /** Aborts when the log cannot continue, or is closed. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The number of the newest segment that is not empty. */
  get newest(): number {
    return this.#nextNumber - (this.#gathering?.isEmpty === true ? 2 : 1);
  }

  /** @throws ErrnoError once the log cannot continue. */
  mustBeSound(): void {
    if (this.#failure !== undefined) throw new RepeatedError(this.#failure.errno, this.#failure.message);
  }

  /** Done when all of it is in memory. Returns a promise if it must wait for room. */
  write(source: Uint8Array, block: number): void | Promise<void> {
    this.mustBeSound();
    const done = this.#gather(source, block, this.options.notes);
    if (done < source.length) return this.#writeRest(source, block, done);
  }

  /** Takes as much of `source` as there is room for, without a note. Returns how many bytes that is. */
  offer(source: Uint8Array, block: number): number {
    this.mustBeSound();
    return this.#gather(source, block);
  }

  /** Done when there is room again, or never will be. */
  roomy(): Promise<void> {
    return this.#room.promise;
  }

  /** Makes holes. */
  clear(block: number, count: number): void | Promise<void> {
    this.mustBeSound();
    if (this.#clear(block, count)) return;
    return this.#clearWhenRoomy(block, count);
  }

  /** Done when everything written before is in the bucket. @throws ErrnoError */
  flush(): Promise<void> | void {
    this.mustBeSound();
    const { newest } = this;
    if (newest <= this.committed) return;
    if (this.#gathering?.number === newest) this.#seal(true);
    return new Promise((resolve, reject) => this.#waiters.push({ number: newest, resolve, reject }));
  }

  /** Checks that it still owns the disk. @throws ErrnoError */
  async mustOwn(): Promise<void> {
    const place = { number: this.committed + 1, writer: this.place.writer };
    try {
      const head = await readHead(this.store, this.disk, place, this.#abort.signal);
      if (head?.kind === "claim") this.#fail(this.#takenOver(head));
    } finally {
      this.mustBeSound();
    }
  }

  /** Writes nothing more, and gives up what is on its way. */
  close(): void {
    clearTimeout(this.#idle);
    this.#failure ??= new ErrnoError("EIO", `${this.store.name} is closed`);
    this.#abort.abort();
  }

  async #writeRest(source: Uint8Array, block: number, done: number): Promise<void> {
    let at = done;
    while (at < source.length) {
      await this.#room.promise;
      this.mustBeSound();
      at += this.#gather(source.subarray(at), block + at / BLOCK_BYTES, this.options.notes);
    }
  }

  async #clearWhenRoomy(block: number, count: number): Promise<void> {
    do {
      await this.#room.promise;
      this.mustBeSound();
    } while (!this.#clear(block, count));
  }

  /** Returns how many bytes it took. */
  #gather(source: Uint8Array, block: number, notes?: WriteNotes): number {
    let at = 0;
    while (at < source.length) {
      const gathering = this.#open();
      if (gathering === undefined) break;
      const left = (source.length - at) / BLOCK_BYTES;
      const room = this.#roomToNote(notes, gathering, Math.min(left, this.options.segmentBlocks));
      if (room === "later") break;
      // A write within one segment cannot be torn. Only a write longer than a segment spans several.
      if (room === "never" || !gathering.hasRoomFor(left)) {
        if (!this.#seal(false)) break;
        continue;
      }
      const first = block + at / BLOCK_BYTES;
      const count = gathering.write(source.subarray(at), first);
      notes?.note(gathering.number, first, count, source.subarray(at, at + count * BLOCK_BYTES));
      at += count * BLOCK_BYTES;
      if (at < source.length || gathering.isFull) this.#seal(false);
    }
    return at;
  }

  #clear(block: number, count: number): boolean {
    if (this.map.find(block, count) === count && this.map.foundIndex < 0) return true;
    const { notes } = this.options;
    for (;;) {
      const gathering = this.#open();
      if (gathering === undefined) return false;
      const room = this.#roomToNote(notes, gathering, 0);
      if (room === "later") return false;
      if (room === "now" && gathering.clear(block, count)) {
        notes?.note(gathering.number, block, count);
        return true;
      }
      if (!this.#seal(false)) return false;
    }
  }

  #roomToNote(notes: WriteNotes | undefined, { number }: Gathering, blocks: number): NotesRoom {
    const room = notes?.roomFor(number, blocks) ?? "now";
    if (room === "later") void notes?.roomy().then(() => this.#roomAgain());
    return room;
  }

  /** The segment to write to; undefined while there is no room for another. */
  #open(): Gathering | undefined {
    if (this.#gathering?.isFull === true && !this.#seal(false)) return undefined;
    this.#gathering ??= this.#begin();
    this.#idle ??= setTimeout(this.#sealIdle, this.options.idleMs);
    return this.#gathering;
  }

  #begin(): Gathering {
    const index = this.#addSegment();
    const bytes = this.#spare.pop() ?? blocksForSegment(this.options.segmentBlocks);
    this.resident.set(index, bytes);
    this.#nextNumber += 1;
    return new Gathering(this.#nextNumber - 1, index, bytes, this.map);
  }

  #addSegment(): number {
    try {
      return this.map.addSegment(this.#nextNumber);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new ErrnoError("ENOSPC", `${this.store.name} has the largest possible number of segments`);
    }
  }

  readonly #sealIdle = (): void => {
    this.#idle = undefined;
    this.#seal(true);
  };

  /** Sends what has been gathered. Returns false when too much is on its way; with `isWanted` it is then sent later. */
  #seal(isWanted: boolean): boolean {
    const gathering = this.#gathering;
    if (gathering === undefined || gathering.isEmpty || this.#failure !== undefined) return false;
    if (this.#onTheirWay.length >= this.options.puts) {
      this.#isWanted ||= isWanted;
      return false;
    }
    const { number, index, bytes } = gathering;
    const sealed = { number, index, bytes, isDone: false };
    this.#gathering = undefined;
    this.#isWanted = false;
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.#onTheirWay.push(sealed);
    void this.#send(gathering).then(() => this.#sent(sealed), this.#fail);
    return true;
  }

  async #send(gathering: Gathering): Promise<void> {
    const { number, slots } = gathering;
    const { writer } = this.place;
    const entries = gathering.entries();
    const chunks = await pack(gathering.bytes.subarray(0, slots * BLOCK_BYTES), this.options.compress);
    const head = { disk: this.disk, number, writer, time: Date.now(), slots, entries };
    const object = encodeSegment(head, chunks, gathering.bytes);
    await this.#create({ number, writer }, object);
    this.made.bytes += object.length;
    this.made.objects += 1;
  }

  async #create(place: LogPlace, object: Uint8Array<ArrayBuffer>): Promise<void> {
    const { signal } = this.#abort;
    for (;;) {
      if ((await this.store.create(logKey(place), object, signal)) === "created") return;
      const head = await readHead(this.store, this.disk, place, signal);
      // An earlier try succeeded, and its answer was lost.
      if (head?.kind === "segment" && head.writer === place.writer) return;
      if (head?.kind === "claim") throw this.#takenOver(head);
      // The store is not consistent yet.
      await Bun.sleep(AGAIN_MS);
    }
  }

  #takenOver({ owner }: ClaimHead): ErrnoError {
    return new ErrnoError(
      "EIO",
      `${this.store.name} was taken over by ${owner}: nothing is written here any more; detach this one`,
    );
  }

  #sent(sealed: Sealed): void {
    sealed.isDone = true;
    for (let first = this.#onTheirWay[0]; first?.isDone === true; first = this.#onTheirWay[0]) {
      this.#onTheirWay.shift();
      this.committed = first.number;
      this.resident.delete(first.index);
      this.#spare.push(first.bytes);
    }
    this.options.notes?.committed(this.committed);
    // Waiters are in the order of their numbers.
    for (let first = this.#waiters[0]; first !== undefined; first = this.#waiters[0]) {
      if (first.number > this.committed) break;
      this.#waiters.shift();
      first.resolve();
    }
    if (this.#failure !== undefined) return;
    if (this.#isWanted || this.#gathering?.isFull === true) this.#seal(this.#isWanted);
    this.#roomAgain();
    this.onCommitted();
  }

  #roomAgain(): void {
    this.#room.resolve();
    this.#room = Promise.withResolvers();
  }

  readonly #fail = (error: unknown): void => {
    if (this.#failure !== undefined) return;
    this.#failure =
      error instanceof ErrnoError ? error : new ErrnoError("EIO", messageOf(error), { cause: error });
    this.#abort.abort();
    for (const { reject } of this.#waiters.splice(0)) reject(this.#failure);
    this.#room.resolve();
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
