/**
 * Writes what only a journal has to the bucket, before the disk is served again.
 *
 * The bucket has whole segments. Each number of the log is, for ever, either its writer's segment or the claim that
 * ended that writer's turn. So the next claim says which segments the bucket lacks: those of the journal with that
 * number or a higher one. A PUT whose answer was lost has made its object before the claim, or never will. Its changes
 * are then in the bucket and are not applied again, or they are missing and are applied.
 *
 * Exactly one segment of the new writer repeats each of these segments, in order. Meanwhile neither users nor the
 * cleaner nor a checkpoint write anything. If this is interrupted, the next claim says how many have been repeated. No
 * change is applied to a state that already contains it, so the bucket never goes back, not even for a moment in which
 * another machine takes the disk over. The journal keeps everything until the last segment is in the bucket.
 *
 * The new writer's name is in the journal, on stable storage, before it makes its claim. A claim by any other name is
 * from another machine, which has continued from what the bucket had. The journal then no longer fits the bucket.
 */
import { hostname } from "node:os";
import { UserError } from "tsbuse";
import { type ClaimHead, ENTRY, newName } from "./format.ts";
import type { History } from "./history.ts";
import { Journal } from "./journal.ts";
import {
  type Batch,
  blocksOf,
  encodeHeader,
  HEADER_BLOCKS,
  type JournalHeader,
  type JournalLayout,
} from "./journal-format.ts";
import type { JournalStorage } from "./journal-file.ts";
import { damagedError, readBatch, type Scan, scanJournal } from "./journal-scan.ts";
import { readHead } from "./log-reader.ts";
import { LogWriter, type WriterOptions } from "./log-writer.ts";
import type { Claimant, Opened } from "./opening.ts";
import { BLOCK_BYTES, type ObjectStore } from "./parts.ts";
import type { DiskRecord } from "./records.ts";

/** All batches of one segment. */
type Segment = readonly Batch[];
type Claim = Pick<ClaimHead, "number" | "writer" | "owner" | "time">;

const NEVER_MS = 2 ** 31 - 1;

export class JournalRecovery {
  /** Whether the bucket may lack something. */
  #isNeeded: boolean;
  #header: JournalHeader | undefined;

  private constructor(
    readonly storage: JournalStorage,
    readonly scan: Scan,
    readonly options: WriterOptions,
    readonly log: (line: string) => void,
  ) {
    this.#header = scan.header;
    this.#isNeeded = scan.header?.candidate !== undefined && scan.header.candidate !== "";
  }

  /** Reads the journal, or creates one. @throws UserError */
  static async begin(
    storage: JournalStorage,
    options: WriterOptions,
    log: (line: string) => void,
  ): Promise<JournalRecovery> {
    const scan = await scanJournal(storage);
    await storage.reserve(blocksOf(layoutFor(options)) * BLOCK_BYTES);
    return new JournalRecovery(storage, scan, options, log);
  }

  /** @param disk undefined: not created yet. @throws UserError when the journal belongs to another disk. */
  mustBeOf(disk: string | undefined): void {
    if (this.#header !== undefined && this.#header.disk !== disk)
      throw new UserError(
        `the journal in ${this.storage.name} is of another disk: give each disk its own journal directory`,
      );
  }

  claimant(store: ObjectStore, disk: DiskRecord): Claimant {
    const candidate = this.#header?.candidate ?? "";
    const writer = candidate === "" ? newName() : candidate;
    return {
      writer,
      owner: `process ${process.pid} on ${hostname()}`,
      beforeClaim: (history) => this.#mayFollow(store, disk, history, writer),
    };
  }

  /** Writes what the bucket lacks to it, and returns the journal of the writer that has claimed the disk. */
  async finish(store: ObjectStore, { history }: Opened): Promise<Journal> {
    const { first, writer } = history.turns.at(-1) ?? { first: 1, writer: "" };
    if (this.#header !== undefined && this.#isNeeded) {
      const pending = this.#pendingAt(this.#header, first - 1);
      const [oldest] = pending[0] ?? [];
      if (oldest !== undefined) {
        const floor = oldest.number;
        await this.#writeHeader({ ...this.#header, owner: writer, ownerFirst: first, floor, candidate: "" });
        await this.#repeat(store, history, this.#header, pending);
      }
    }
    const layout = layoutFor(this.options);
    const { disk } = history;
    const generation = this.#header?.generation ?? 0;
    const names = { origin: writer, owner: writer, ownerFirst: 0, floor: 0, candidate: "" };
    await this.#writeHeader({ disk: disk.id, generation, ...layout, ...names, boot: this.storage.boot });
    return new Journal(this.storage, { layout, writer, log: this.log });
  }

  /** @throws UserError when another machine has continued without what the journal holds. */
  async #mayFollow(
    store: ObjectStore,
    disk: DiskRecord,
    { next }: History,
    candidate: string,
  ): Promise<void> {
    const header = this.#header;
    this.#isNeeded = false;
    if (header === undefined || this.scan.batches.length + this.scan.strays.length === 0) return;
    if (next.writer !== header.owner) {
      const claim = await this.#findClaim(store, disk, header);
      if (claim === undefined || this.#pendingAt(header, claim.number).length === 0) return;
      const when = new Date(claim.time).toISOString();
      throw new UserError(
        `${store.name} was taken over by ${claim.owner} at ${when}, and the journal in ${this.storage.name} holds earlier writes that are not in the bucket: move the journal away to go on without them`,
      );
    }
    // Segments that arrive late only reduce what is missing.
    if (this.#pendingAt(header, next.number).length === 0) return;
    this.#isNeeded = true;
    // Write it even if the header names the candidate already: that may be in the page cache only.
    await this.#writeHeader({ ...header, candidate });
  }

  /**
   * The claim that ended the turn of the owner, or of the candidate after it, before the bucket had all of the journal.
   */
  async #findClaim(store: ObjectStore, disk: DiskRecord, header: JournalHeader): Promise<Claim | undefined> {
    const { owner, candidate, origin, ownerFirst, areas } = header;
    const numbers = [...this.scan.batches, ...this.scan.strays].map(({ number }) => number);
    const newest = Math.max(...numbers);
    const isOrigin = owner === origin;
    const first = isOrigin ? Math.max(1, newest - areas + 1) : ownerFirst;
    const count = isOrigin ? newest - first + 1 : new Set(numbers).size;
    const claims = await Promise.all(
      Array.from({ length: count }, (_, at) => claimAt(store, disk, first + at, owner)),
    );
    const claim = claims.find((found) => found !== undefined);
    if (claim === undefined || claim.writer !== candidate) return claim;
    const next = await claimAt(store, disk, claim.number + 1, candidate);
    // The message names who made the last claim; the number counts from the owner's first one.
    return { ...(next ?? claim), number: claim.number };
  }

  /** The segments that the bucket lacks if the claim after its owner has this number. @throws UserError */
  #pendingAt(header: JournalHeader, claim: number): readonly Segment[] {
    const isOrigin = header.owner === header.origin;
    const segments = Map.groupBy(
      this.#chain(header, isOrigin ? claim : header.floor),
      ({ number }) => number,
    );
    return [...segments.values()].slice(isOrigin ? 0 : claim - header.ownerFirst);
  }

  /** The batches of segments from `floor` on, up to the first missing one. @throws UserError */
  #chain({ boot }: JournalHeader, floor: number): readonly Batch[] {
    const { batches, strays } = this.scan;
    const needed = batches.filter(({ number }) => number >= floor);
    const later = strays.filter(({ number }) => number >= floor);
    const chain: Batch[] = [];
    for (const batch of needed) {
      const last = chain.at(-1);
      if (last === undefined ? batch.before >= floor : batch.sequence !== last.sequence + 1) break;
      chain.push(batch);
    }
    if (chain.length === needed.length && later.length === 0) return chain;
    // A power failure may lose what was not synced, and keep what was written later.
    const end = chain.at(-1)?.sequence ?? 0;
    const isLost = ({ synced, syncedNumber }: Batch): boolean => syncedNumber >= floor && synced > end;
    if (boot === this.storage.boot || [...needed, ...later].some(isLost)) throw damagedError(this.storage);
    return chain;
  }

  /** Writes each segment as one segment of the new writer. */
  async #repeat(
    store: ObjectStore,
    history: History,
    header: JournalHeader,
    pending: readonly Segment[],
  ): Promise<void> {
    const { segmentBlocks } = header;
    const options = { ...this.options, segmentBlocks, idleMs: NEVER_MS };
    const writer = new LogWriter(store, history.disk.id, history.map, history.next, options);
    let bytes = 0;
    try {
      for (const [index, segment] of pending.entries()) {
        for (const batch of segment) bytes += await this.#apply(writer, header, batch);
        await writer.flush();
        const made = writer.committed + 1 - writer.place.number;
        // Only the last segment may change nothing: the journal may have just its beginning.
        if (made !== index + 1 && (made !== index || index + 1 < pending.length))
          throw new Error(`segment ${index + 1} of the journal has become ${made}`);
      }
      history.advance(writer.committed);
    } finally {
      writer.close();
    }
    this.log(`wrote ${bytes} bytes from the journal in ${this.storage.name} to ${store.name}`);
  }

  /** Returns how many bytes it writes. */
  async #apply(writer: LogWriter, layout: JournalLayout, batch: Batch): Promise<number> {
    const data = await readBatch(this.storage, layout, batch);
    let at = 0;
    for (const { kind, block, count } of batch.changes) {
      if (kind === ENTRY.hole) await writer.clear(block, count);
      else {
        await writer.write(data.subarray(at, at + count * BLOCK_BYTES), block);
        at += count * BLOCK_BYTES;
      }
    }
    return at;
  }

  /** Done when the header is on stable storage, with everything that was in the file before. */
  async #writeHeader(header: JournalHeader): Promise<void> {
    const generation = header.generation + 1;
    this.#header = { ...header, generation };
    const block = encodeHeader(this.#header);
    for (let at = 0; at < HEADER_BLOCKS; at += 1) {
      await this.storage.write(block, at * BLOCK_BYTES);
      await this.storage.datasync();
    }
  }
}

function layoutFor({ puts, segmentBlocks }: WriterOptions): JournalLayout {
  // An area for each segment on its way, and one for the segment being gathered. A block that is overwritten takes
  // space each time, so areas are longer than segments.
  return { areas: puts + 1, areaBlocks: 2 * segmentBlocks, segmentBlocks };
}

async function claimAt(
  store: ObjectStore,
  disk: DiskRecord,
  number: number,
  writer: string,
): Promise<Claim | undefined> {
  const head = await readHead(store, disk.id, { number, writer });
  return head?.kind === "claim" ? head : undefined;
}
