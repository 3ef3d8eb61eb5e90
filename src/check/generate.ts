/** Operations that devices get wrong: edges, neighbours, overlaps, and ranges of every length. */
import type { Dispatch } from "../dispatch.ts";
import type { Random } from "../values/random.ts";
import { NOISE_PERIOD } from "./noise.ts";
import { changes, hasRange, type Operation } from "./operation.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** The longest read, write, and zeroes that must stay allocated. */
export const DATA_MAX = 32 * MIB;
/** A length on the wire is 32 bits wide. */
const LENGTH_LIMIT = 2 ** 32;
/** How many recent ranges are remembered for reuse. */
const RECENT = 12;

type Kind = Operation["kind"];

/** The relative frequency of each kind. */
const WEIGHTS: Readonly<Record<Kind, number>> = {
  read: 70,
  write: 70,
  writeZeroes: 18,
  trim: 12,
  flush: 6,
  wait: 10,
  extents: 4,
  reopen: 1,
  crash: 3,
};

/** One change in this many is repeated, as a recovered node repeats unanswered requests. */
const REPEATS = 16;

interface Range {
  readonly offset: number;
  readonly length: number;
}

export class Generator {
  readonly #kinds: readonly Kind[];
  readonly #recent: Range[] = [];
  #last: Operation | undefined;

  constructor(
    readonly random: Random,
    readonly shape: Pick<Dispatch, "size" | "blockSize" | "capabilities">,
    crash = false,
  ) {
    const { write, flush, trim, writeZeroes, extents } = shape.capabilities;
    const able: Readonly<Record<Kind, boolean>> = {
      read: true,
      write,
      flush,
      trim,
      writeZeroes,
      extents,
      wait: true,
      reopen: true,
      crash,
    };
    const kinds: readonly Kind[] = [
      "read",
      "write",
      "writeZeroes",
      "trim",
      "flush",
      "wait",
      "extents",
      "reopen",
      "crash",
    ];
    this.#kinds = kinds
      .filter((kind) => able[kind])
      .flatMap((kind) => Array.from({ length: WEIGHTS[kind] }, () => kind));
  }

  /** Begins by reading what is there, so that a later overflow into it is noticed. */
  operations(count: number): Operation[] {
    const first: Operation = { kind: "read", offset: 0, length: Math.min(this.shape.size, DATA_MAX) };
    return [first, ...Array.from({ length: count - 1 }, () => this.#next())];
  }

  #next(): Operation {
    if (this.#last !== undefined && changes(this.#last) && this.random.oneIn(REPEATS)) return this.#last;
    const operation = this.#make(this.random.pick(this.#kinds));
    this.#last = operation;
    if (hasRange(operation)) {
      this.#recent.push({ offset: operation.offset, length: operation.length });
      if (this.#recent.length > RECENT) this.#recent.shift();
    }
    return operation;
  }

  #make(kind: Kind): Operation {
    const { random } = this;
    const fua = this.shape.capabilities.fua && random.oneIn(4);
    switch (kind) {
      case "read":
        return { kind, ...this.#range(DATA_MAX) };
      case "write":
        return { kind, ...this.#range(DATA_MAX), fua, fill: random.below(NOISE_PERIOD) };
      case "writeZeroes": {
        const mayTrim = random.oneIn(2);
        return { kind, ...this.#range(mayTrim ? LENGTH_LIMIT : DATA_MAX), fua, mayTrim };
      }
      case "trim":
        return { kind, ...this.#range(LENGTH_LIMIT), fua };
      case "extents":
        return { kind, ...this.#range(LENGTH_LIMIT) };
      default:
        return { kind };
    }
  }

  /** Whole blocks within the device. */
  #range(longest: number): Range {
    const { size, blockSize } = this.shape;
    const most = Math.min(size, longest < LENGTH_LIMIT ? longest : LENGTH_LIMIT - blockSize);
    const again = this.random.oneIn(6) ? this.#recent[this.random.below(RECENT)] : undefined;
    if (again !== undefined && again.length <= most) return again;
    const length = Math.min(most, blockSize * (1 + this.random.below(this.#lengthLimit(most) / blockSize)));
    const wanted = this.#offset(length);
    return { offset: Math.max(0, Math.min(size - length, wanted)), length };
  }

  /** Mostly short: a long range hides what happens at the edges of others. */
  #lengthLimit(most: number): number {
    const { random } = this;
    const dice = random.below(100);
    if (dice < 50) return 4 * KIB;
    if (dice < 80) return 32 * KIB;
    if (dice < 96) return MIB;
    return most;
  }

  #offset(length: number): number {
    const { random } = this;
    const { size, blockSize } = this.shape;
    const dice = random.below(16);
    if (dice < 1) return 0;
    if (dice < 2) return size - length;
    if (dice < 7 || this.#recent.length === 0) return blockSize * random.below(size / blockSize);
    const { offset, length: otherLength } = random.pick(this.#recent);
    if (dice < 9) return offset + otherLength;
    if (dice < 11) return offset - length;
    const blocks = Math.min(otherLength, MIB) / blockSize;
    return offset + blockSize * (random.below(blocks + 8) - 4);
  }
}
