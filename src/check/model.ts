/** What a device must hold: ranges, in order, with the known contents of each. */
import { DATA, firstMismatch, zeroMismatch } from "./noise.ts";
import { hasRange, type Operation, type RangeOperation } from "./operation.ts";

/**
 * `original`: the unknown contents that the device came with, which must stay. `learned`: the same after a read.
 * `anything`: trimmed, and may differ at each read.
 */
type Content =
  | { readonly kind: "original" | "anything" }
  | { readonly kind: "zero"; readonly by: string }
  | { readonly kind: "written"; readonly fill: number; readonly by: string }
  | { readonly kind: "learned"; readonly bytes: Uint8Array; readonly from: number };

interface Segment {
  readonly start: number;
  readonly end: number;
  readonly content: Content;
}

/** The maximum of bytes learned: further ones are read but not compared. */
const LEARNED_MAX = 64 * 2 ** 20;

/** A change since the last flush. They are kept in the order in which they were done. */
interface Recent extends Segment {
  /** It was forced to stable storage on its own. */
  readonly isDurable: boolean;
}

/** The state when a flush began. */
export interface FlushBegun {
  readonly segments: readonly Segment[];
  readonly changes: number;
}

/** What a disk writes as a whole or not at all, in bytes. */
const SECTOR = 512;

export class Model {
  #segments: readonly Segment[];
  /** The contents as of the last flush. */
  #flushed: readonly Segment[];
  #recent: Recent[] = [];
  /** How many changes came before the recent ones. */
  #changes = 0;
  #learned = 0;

  constructor(readonly size: number) {
    this.#segments = [{ start: 0, end: size, content: { kind: "original" } }];
    this.#flushed = this.#segments;
  }

  /**
   * Adds a change that is done. `by` names it for the message if its data turns out to be missing.
   * @param isDurable whether it needs no flush.
   */
  apply(operation: Operation, by: string, isDurable: boolean): void {
    const content = contentOf(operation, by);
    if (content === undefined || !hasRange(operation)) return;
    this.#put(operation, content);
    const { offset, length } = operation;
    this.#recent.push({ start: offset, end: offset + length, content, isDurable });
  }

  flushBegun(): FlushBegun {
    return { segments: this.#segments, changes: this.#changes + this.#recent.length };
  }

  /** What was done before the flush began is now durable. */
  flushed({ segments, changes }: FlushBegun): void {
    if (changes < this.#changes) return;
    this.#flushed = segments;
    this.#recent = this.#recent.slice(changes - this.#changes);
    this.#changes = changes;
  }

  /** The ranges that a crash may have changed, in pieces of at most `longest` bytes. */
  uncertain(longest: number): readonly { readonly offset: number; readonly length: number }[] {
    return this.#recent.flatMap(({ start, end }) => inPieces(start, end, longest));
  }

  /**
   * Returns what is wrong with bytes read at `offset` after a crash: each sector must be as it was when last durable,
   * or as a later change left it. From then on it must stay the same.
   */
  verifyCrash(bytes: Uint8Array, offset: number): string | undefined {
    for (let at = 0; at < bytes.length; at += SECTOR) {
      const sector = bytes.subarray(at, at + SECTOR);
      const wrong = this.#verifySector(sector, offset + at);
      if (wrong !== undefined) return wrong;
    }
    this.#learn(bytes, offset);
    return undefined;
  }

  /** Call it when all uncertain ranges have been read. */
  crashed(): void {
    this.flushed(this.flushBegun());
  }

  #verifySector(sector: Uint8Array, offset: number): string | undefined {
    const last = this.#recent.findLastIndex((each) => each.isDurable && covers(each, offset));
    const since = this.#recent.slice(Math.max(0, last)).filter((each) => covers(each, offset));
    const before = last < 0 ? [this.#flushed[indexAt(this.#flushed, offset)]] : [];
    const possible = [...before, ...since].flatMap((each) => (each === undefined ? [] : [each.content]));
    if (possible.some((content) => mismatch(sector, offset, content) < 0)) return undefined;
    const [first] = possible;
    const at = first === undefined ? 0 : mismatch(sector, offset, first);
    const expected = first === undefined ? "" : `, ${expectation(first, offset + at)}`;
    const others = possible.length > 1 ? ", and it is nothing that was written since" : "";
    return `byte ${offset + at} is ${hex(sector[at])}${expected} and flushed${others}`;
  }

  /** Returns what is wrong with bytes read at `offset`; if nothing is, learns from them. */
  verify(bytes: Uint8Array, offset: number): string | undefined {
    for (const { start, end, content } of this.#overlapping(offset, offset + bytes.length)) {
      const from = Math.max(start, offset);
      const part = bytes.subarray(from - offset, Math.min(end, offset + bytes.length) - offset);
      const at = mismatch(part, from, content);
      if (at >= 0) return `byte ${from + at} is ${hex(part[at])}, ${expectation(content, from + at)}`;
      if (content.kind === "original") this.#learn(part, from);
    }
    return undefined;
  }

  /** Says if the range is known to hold something other than zeroes; undefined if not. */
  contradictsZero(offset: number, length: number): string | undefined {
    for (const { start, end, content } of this.#overlapping(offset, offset + length)) {
      if (content.kind !== "written") continue;
      const [from, to] = [Math.max(start, offset), Math.min(end, offset + length)];
      return `bytes ${from} to ${to - 1} are said to be zero, ${expectation(content, from)}`;
    }
    return undefined;
  }

  /** Parts of the device with known contents, in order, of at most `longest` bytes. */
  known(longest: number): readonly { readonly offset: number; readonly length: number }[] {
    const known = this.#segments.filter(({ content }) => !["original", "anything"].includes(content.kind));
    return known.flatMap(({ start, end }) => inPieces(start, end, longest));
  }

  #put({ offset, length }: Pick<RangeOperation, "offset" | "length">, content: Content): void {
    const end = offset + length;
    const [first, last] = this.#bounds(offset, end);
    const head = this.#segments[first];
    const tail = this.#segments[last - 1];
    const replacement: Segment[] = [{ start: offset, end, content }];
    if (head !== undefined && head.start < offset) replacement.unshift({ ...head, end: offset });
    if (tail !== undefined && tail.end > end) replacement.push({ ...tail, start: end });
    this.#segments = this.#segments.toSpliced(first, last - first, ...replacement);
  }

  #learn(part: Uint8Array, from: number): void {
    const range = { offset: from, length: part.length };
    if (this.#learned + part.length > LEARNED_MAX) return this.#put(range, { kind: "original" });
    this.#learned += part.length;
    this.#put(range, { kind: "learned", bytes: part.slice(), from });
  }

  #overlapping(start: number, end: number): readonly Segment[] {
    return this.#segments.slice(...this.#bounds(start, end));
  }

  /** The index of the first segment that overlaps the range, and that of the first segment after it. */
  #bounds(start: number, end: number): [number, number] {
    return [indexAt(this.#segments, start), indexAt(this.#segments, end - 1) + 1];
  }
}

/** The index of the segment that contains `position`: there are no gaps. */
function indexAt(segments: readonly Segment[], position: number): number {
  let low = 0;
  let high = segments.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((segments[middle]?.start ?? 0) <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The contents after an operation; undefined if it changes nothing. */
function contentOf(operation: Operation, by: string): Content | undefined {
  if (operation.kind === "write") return { kind: "written", fill: operation.fill, by };
  if (operation.kind === "writeZeroes") return { kind: "zero", by };
  return operation.kind === "trim" ? { kind: "anything" } : undefined;
}

function covers({ start, end }: Segment, offset: number): boolean {
  return start <= offset && offset < end;
}

function inPieces(start: number, end: number, longest: number): { offset: number; length: number }[] {
  return Array.from({ length: Math.ceil((end - start) / longest) }, (_, index) => {
    const offset = start + index * longest;
    return { offset, length: Math.min(longest, end - offset) };
  });
}

/** The first index at which `part`, read at `from`, differs from `content`, or -1. */
function mismatch(part: Uint8Array, from: number, content: Content): number {
  switch (content.kind) {
    case "zero":
      return zeroMismatch(part);
    case "written":
      return DATA.mismatch(part, content.fill + from);
    case "learned":
      return firstMismatch(part, content.bytes, from - content.from);
    default:
      return -1;
  }
}

function expectation(content: Content, position: number): string {
  if (content.kind === "zero") return `where zeroes were written by ${content.by}`;
  if (content.kind === "written") {
    return `where ${hex(DATA.byteAt(content.fill + position))} was written by ${content.by}`;
  }
  if (content.kind !== "learned") return "where anything is right";
  return `where an earlier read brought ${hex(content.bytes[position - content.from])}`;
}

function hex(byte: number | undefined): string {
  return `0x${(byte ?? 0).toString(16).padStart(2, "0")}`;
}
