/**
 * Bytes that differ from place to place and from use to use, and are quick to make and to compare. All are pieces of
 * one long noise: its bytes `from`, `from` + 1 and so on, repeating. The period is a prime, so that blocks of a device
 * do not begin with the same bytes.
 */
import { Random } from "../values/random.ts";

/** Bytes after which a noise repeats. */
export const NOISE_PERIOD = 1_048_573;

class Noise {
  readonly #seed: number;
  #made: Uint8Array | undefined;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Made on first use: every start of the program loads this module, but few check a device. */
  get #bytes(): Uint8Array {
    this.#made ??= new Random(this.#seed).bytes(NOISE_PERIOD);
    return this.#made;
  }

  fill(target: Uint8Array, from: number): void {
    for (const { start, length, at } of pieces(target.length, from)) {
      target.set(this.#bytes.subarray(at, at + length), start);
    }
  }

  /** The first index at which `bytes` are not what {@link fill} makes, or -1. */
  mismatch(bytes: Uint8Array, from: number): number {
    for (const { start, length, at } of pieces(bytes.length, from)) {
      const mismatch = firstMismatch(bytes.subarray(start, start + length), this.#bytes, at);
      if (mismatch >= 0) return start + mismatch;
    }
    return -1;
  }

  byteAt(from: number): number {
    return this.#bytes[from % NOISE_PERIOD] ?? 0;
  }
}

/** What is written to devices. */
export const DATA = new Noise(1);
/** Fills a buffer that the device has not filled yet, or no longer owns. */
export const GARBAGE = new Noise(2);

const zeroes = new Uint8Array(NOISE_PERIOD);

/** The first index at which `bytes` are not zero, or -1. */
export function zeroMismatch(bytes: Uint8Array): number {
  for (const { start, length } of pieces(bytes.length, 0)) {
    const mismatch = firstMismatch(bytes.subarray(start, start + length), zeroes, 0);
    if (mismatch >= 0) return start + mismatch;
  }
  return -1;
}

/** The first index at which `bytes` differ from those of `other` from `at` on, or -1. */
export function firstMismatch(bytes: Uint8Array, other: Uint8Array, at: number): number {
  const expected = other.subarray(at, at + bytes.length);
  if (Buffer.compare(bytes, expected) === 0) return -1;
  return bytes.findIndex((byte, index) => byte !== expected[index]);
}

/** Splits `length` bytes of the noise, from `from` on, into pieces that do not wrap around. */
function* pieces(length: number, from: number): Generator<{ start: number; length: number; at: number }> {
  for (let start = 0; start < length;) {
    const at = (from + start) % NOISE_PERIOD;
    const count = Math.min(length - start, NOISE_PERIOD - at);
    yield { start, length: count, at };
    start += count;
  }
}
