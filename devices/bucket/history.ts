/** What the log says a disk contains: the map, who wrote which part, and what comes next. */
import { BlockMap } from "./block-map.ts";
import { type ClaimHead, DamageError, ENTRY, type Head, type LogPlace, type SegmentHead } from "./format.ts";
import { BLOCK_BYTES } from "./parts.ts";
import type { DiskRecord, StateRecord, Turn, Versioned } from "./records.ts";

export class History {
  readonly map: BlockMap;
  /** The format version of the current writer. */
  version: number;
  readonly #turns: Turn[];
  /** The number of the next object of the log. */
  #next: number;

  /** @param root of the checkpoint or snapshot that it begins with. The caller loads its pages. */
  constructor(
    readonly disk: DiskRecord & Versioned,
    root?: StateRecord & Partial<Versioned>,
  ) {
    this.version = root?.version ?? disk.version;
    this.map = new BlockMap(disk.size / BLOCK_BYTES);
    this.#turns = [...(root?.turns ?? [{ first: 1, writer: disk.writer }])];
    this.#next = (root?.number ?? 0) + 1;
  }

  /** The place of the next object of the log. */
  get next(): LogPlace {
    return { number: this.#next, writer: this.#turns.at(-1)?.writer ?? "" };
  }

  get turns(): readonly Turn[] {
    return this.#turns;
  }

  /** Where the segment of this number is. */
  placeOf(number: number): LogPlace {
    const turn = this.#turns.findLast(({ first }) => first <= number);
    return { number, writer: turn?.writer ?? "" };
  }

  /** Applies the object at {@link next}. @throws DamageError */
  apply(head: Head): void {
    if (head.kind === "claim") this.#turn(head);
    else this.#apply(head);
    this.#next += 1;
  }

  /** Notes segments up to `number` that this writer added to the map itself. */
  advance(number: number): void {
    this.#next = number + 1;
  }

  /** The numbers of the segments up to `number` that have live blocks. */
  *liveSegments(number: number): Iterable<number> {
    const { map } = this;
    for (const index of map.segments()) {
      const own = map.segmentNumber(index) ?? Infinity;
      if (own <= number && map.liveIn(index) > 0) yield own;
    }
  }

  /** Forgets the turns from which no segment is left. */
  forget(): void {
    const { map } = this;
    let oldest = this.#next;
    for (const index of map.segments()) oldest = Math.min(oldest, map.segmentNumber(index) ?? oldest);
    const turn = this.#turns.findLastIndex(({ first }) => first <= oldest);
    this.#turns.splice(0, Math.max(0, turn));
  }

  #turn({ writer, version }: ClaimHead): void {
    this.version = version;
    this.#turns.push({ first: this.#next + 1, writer });
  }

  #apply({ writer, entries, slots }: SegmentHead): void {
    const { map } = this;
    if (writer !== this.next.writer) throw new DamageError("is another writer's");
    // The pages of a checkpoint may contain this segment already.
    const index = map.segmentIndex(this.#next) ?? map.addSegment(this.#next);
    let slot = 0;
    for (const { kind, block, count } of entries) {
      const isData = kind === ENTRY.data;
      if (block + count > map.blocks || (isData && slot + count > slots))
        throw new DamageError("has an invalid table");
      if (!isData) map.clear(block, count);
      else {
        map.set(block, count, index, slot);
        slot += count;
      }
    }
  }
}
