/** The contents of sectors: recorded ones, by number (see `Change.value`), and those of the base image. */
import { pread } from "../libc/file.ts";
import { SECTOR } from "../record/format.ts";
import { dataRuns } from "./data-runs.ts";
import type { Change } from "./history.ts";
import { common, type Run, type Runs } from "./ranges.ts";

/** The value of a sector that was never changed. */
export const UNCHANGED = -1;
/** Zeroes. */
const ZERO = 0;
const ZEROES = new Uint8Array(new ArrayBuffer(SECTOR));

export class Contents {
  /** Where each value lies in the record. */
  readonly #places: Float64Array;
  /** Two hashes of each value, computed on first use. */
  readonly #hashes: Int32Array;
  readonly #isHashed: Uint8Array;
  readonly #baseHashes = new Map<number, readonly [number, number]>();
  readonly #buffer = new Uint8Array(new ArrayBuffer(SECTOR));
  /** The sectors of the base that are not holes. */
  readonly #baseData: Runs;

  /**
   * @param record the whole file.
   * @param base a file of the device's size, open for reading; undefined for zeroes.
   */
  constructor(
    readonly record: Uint8Array,
    changes: readonly Change[],
    readonly base: number | undefined,
  ) {
    const values = changes.reduce(
      (most, { value, first, end }) => (value === ZERO ? most : Math.max(most, value + end - first)),
      1,
    );
    this.#places = new Float64Array(values);
    this.#hashes = new Int32Array(2 * values);
    this.#isHashed = new Uint8Array(values);
    for (const { value, payload, first, end } of changes) {
      if (value === ZERO) continue;
      for (let index = 0; index < end - first; index += 1)
        this.#places[value + index] = payload + index * SECTOR;
    }
    this.#baseData = base === undefined ? [] : sectorsOf(dataRuns(base));
  }

  /** The sectors of a run that may have held something before the record began. */
  heldBefore(run: Run): Runs {
    return common([run], this.#baseData);
  }

  /** Whether a sector with this value is known to read as zeroes without looking at its bytes. */
  isZero(sector: number, value: number): boolean {
    if (value !== UNCHANGED) return value === ZERO;
    return this.heldBefore({ first: sector, end: sector + 1 }).length === 0;
  }

  /** The bytes of a sector with this value, valid until the next call. */
  read(sector: number, value: number): Uint8Array {
    if (value === UNCHANGED) return this.#readBase(sector);
    if (value === ZERO) return ZEROES;
    const at = this.#places[value] ?? 0;
    return this.record.subarray(at, at + SECTOR);
  }

  /** Adds the sector to a hash of two words, or removes it: both are the same XOR. Zeroes do not change the hash. */
  toggle(hash: Int32Array, sector: number, value: number): void {
    if (value === ZERO || (value === UNCHANGED && this.base === undefined)) return;
    if (value === UNCHANGED) {
      const [low, high] = this.#baseHash(sector);
      hash[0] = (hash[0] ?? 0) ^ low;
      hash[1] = (hash[1] ?? 0) ^ high;
      return;
    }
    if (this.#isHashed[value] === 0) {
      [this.#hashes[2 * value], this.#hashes[2 * value + 1]] = hashOf(sector, this.read(sector, value));
      this.#isHashed[value] = 1;
    }
    hash[0] = (hash[0] ?? 0) ^ (this.#hashes[2 * value] ?? 0);
    hash[1] = (hash[1] ?? 0) ^ (this.#hashes[2 * value + 1] ?? 0);
  }

  #readBase(sector: number): Uint8Array {
    if (this.base === undefined) return ZEROES;
    pread(this.base, this.#buffer, sector * SECTOR);
    return this.#buffer;
  }

  #baseHash(sector: number): readonly [number, number] {
    const known = this.#baseHashes.get(sector);
    if (known !== undefined) return known;
    const hash = hashOf(sector, this.#readBase(sector));
    this.#baseHashes.set(sector, hash);
    return hash;
  }
}

/** Converts runs of bytes into runs of sectors. */
function sectorsOf(runs: Runs): Runs {
  return runs.map(({ first, end }) => ({
    first: Math.floor(first / SECTOR),
    end: Math.ceil(end / SECTOR),
  }));
}

function hashOf(sector: number, bytes: Uint8Array): readonly [number, number] {
  if (Buffer.compare(bytes, ZEROES) === 0) return [0, 0];
  return [Bun.hash.xxHash32(bytes, sector) | 0, Bun.hash.murmur32v3(bytes, sector) | 0];
}
