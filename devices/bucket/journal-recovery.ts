/**
 * Bringing what only a journal holds to the bucket, before the disk is served again.
 *
 * The bucket has whole segments, and a number of the log is either its writer's segment or the claim that ended that
 * writer's turn, for ever. So the claim of whoever opens the disk next says which segments the bucket lacks: those of
 * the journal with that number or a higher one. A PUT whose answer was lost has made its object before the claim, or
 * never will: its changes are in the bucket and are not applied again, or they are not and are.
 *
 * Each of these segments is repeated by exactly one segment of the new writer, in order, and nothing else is written
 * meanwhile: neither users nor the cleaner nor a checkpoint. If that is cut short, the next claim says how many have
 * been repeated. No change is applied to a state that has it already, so the bucket never goes back, not even for a
 * moment in which another machine takes the disk over. The journal keeps all of it until the last one is there.
 *
 * The new writer's name is in the journal, on stable storage, before it makes its claim: a claim by any other name is
 * another machine's, which has gone on from what the bucket had. What the journal holds does not fit any more then.
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

/** Batches of one segment. */
type Segment = readonly Batch[];
type Claim = Pick<ClaimHead, "number" | "writer" | "owner" | "time">;

const NEVER_MS = 2 ** 31 - 1;

export class JournalRecovery {
  /** Something may be missing in the bucket. */
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

  /** Reads the journal, or makes one. @throws UserError */
  static async begin(
    storage: JournalStorage,
    options: WriterOptions,
    log: (line: string) => void,
  ): Promise<JournalRecovery> {
    const scan = await scanJournal(storage);
    await storage.reserve(blocksOf(layoutFor(options)) * BLOCK_BYTES);
    return new JournalRecovery(storage, scan, options, log);
  }

  /** @param disk undefined: one that is not made yet. @throws UserError when it is another one's. */
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

  /** Brings to the bucket what it lacks, and returns the journal of the writer that has claimed the disk. */
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

  /** @throws UserError when another machine has gone on without what the journal holds. */
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
    // What comes late only makes it less.
    if (this.#pendingAt(header, next.number).length === 0) return;
    this.#isNeeded = true;
    // Even where it says so: that may be in the page cache alone.
    await this.#writeHeader({ ...header, candidate });
  }

  /** The claim that ended the turn of the owner, or of the candidate after it, before all of the journal was there. */
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
    // It is the next one's that counts; the numbers are those of the owner.
    return { ...(next ?? claim), number: claim.number };
  }

  /** The segments that the bucket lacks, if the claim after its owner has this number. @throws UserError */
  #pendingAt(header: JournalHeader, claim: number): readonly Segment[] {
    const isOrigin = header.owner === header.origin;
    const segments = Map.groupBy(
      this.#chain(header, isOrigin ? claim : header.floor),
      ({ number }) => number,
    );
    return [...segments.values()].slice(isOrigin ? 0 : claim - header.ownerFirst);
  }

  /** The batches of segments from `floor` on, up to the first one that is missing. @throws UserError */
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
    // What was not synced may be missing after a power failure, and what was written later may not be.
    const end = chain.at(-1)?.sequence ?? 0;
    const isLost = ({ synced, syncedNumber }: Batch): boolean => syncedNumber >= floor && synced > end;
    if (boot === this.storage.boot || [...needed, ...later].some(isLost)) throw damagedError(this.storage);
    return chain;
  }

  /** Each segment becomes one segment of the new writer. */
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
        // Only what the last one begins with may change nothing.
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

  /** On stable storage, with all that was in the file before. */
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
  // Those on their way, and the one that is gathered; blocks that are written again and again take more space here.
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
