/** What a device must hold: ranges, in order, with what is known of the bytes in each. */
import { DATA, firstMismatch, zeroMismatch } from "./noise.ts";
import type { Operation, RangeOperation } from "./operation.ts";

/**
 * `original`: what the device came with, whatever it is, and it stays. `learned`: the same, once it was read.
 * `anything`: trimmed, and may be different each time.
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

/** Bytes learned in all: what lies beyond is read, and not compared. */
const LEARNED_MAX = 64 * 2 ** 20;

export class Model {
  #segments: readonly Segment[];
  #learned = 0;

  constructor(readonly size: number) {
    this.#segments = [{ start: 0, end: size, content: { kind: "original" } }];
  }

  /** Takes in a change that is done. `by` names it for the message when its bytes turn out to be missing. */
  apply(operation: Operation, by: string): void {
    if (operation.kind === "write") this.#put(operation, { kind: "written", fill: operation.fill, by });
    if (operation.kind === "writeZeroes") this.#put(operation, { kind: "zero", by });
    if (operation.kind === "trim") this.#put(operation, { kind: "anything" });
  }

  /** Says what is wrong with bytes that were read at `offset`, if anything is, and learns from them otherwise. */
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

  /** Whether the range is known to hold something else than zeroes; undefined: no. */
  contradictsZero(offset: number, length: number): string | undefined {
    for (const { start, end, content } of this.#overlapping(offset, offset + length)) {
      if (content.kind !== "written") continue;
      const [from, to] = [Math.max(start, offset), Math.min(end, offset + length)];
      return `bytes ${from} to ${to - 1} are said to be zero, ${expectation(content, from)}`;
    }
    return undefined;
  }

  /** Parts of the device, in order, of at most `longest` bytes, that hold what can be compared. */
  known(longest: number): readonly { readonly offset: number; readonly length: number }[] {
    const known = this.#segments.filter(({ content }) => !["original", "anything"].includes(content.kind));
    return known.flatMap(({ start, end }) =>
      Array.from({ length: Math.ceil((end - start) / longest) }, (_, index) => {
        const offset = start + index * longest;
        return { offset, length: Math.min(longest, end - offset) };
      }),
    );
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
    if (this.#learned + part.length > LEARNED_MAX) return;
    this.#learned += part.length;
    this.#put({ offset: from, length: part.length }, { kind: "learned", bytes: part.slice(), from });
  }

  #overlapping(start: number, end: number): readonly Segment[] {
    return this.#segments.slice(...this.#bounds(start, end));
  }

  /** The indices of the first segment that shares bytes with the range, and of the first one after it. */
  #bounds(start: number, end: number): [number, number] {
    return [this.#indexAt(start), this.#indexAt(end - 1) + 1];
  }

  /** The index of the segment that `position` lies in: there are no gaps. */
  #indexAt(position: number): number {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#segments[middle]?.start ?? 0) <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** The first index at which `part`, read at `from`, is not what it must be, or -1. */
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
