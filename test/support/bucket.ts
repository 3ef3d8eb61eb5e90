/** A bucket in memory, and clients whose network loses, delays, repeats, reorders and damages data by a seed. */
import type { Listed, ObjectStore, PutResult } from "../../devices/bucket/parts.ts";
import { Random } from "./random.ts";

export class Bucket {
  readonly objects = new Map<string, Uint8Array>();
  /** Objects that listings do not show yet: for how many more listings, by key. */
  readonly unseen = new Map<string, number>();
  /** Removed objects that listings still show: for how many more listings, by key. */
  readonly ghosts = new Map<string, number>();

  put(key: string, body: Uint8Array): PutResult {
    if (this.objects.has(key)) return "exists";
    this.objects.set(key, body.slice());
    return "created";
  }
}

export function keysOf({ objects }: Bucket, prefix: string): string[] {
  return [...objects.keys()].filter((key) => key.startsWith(prefix));
}

export interface Faults {
  /** The probability of each, from 0 to 1. */
  readonly lost: number;
  readonly late: number;
  readonly damaged: number;
  /** The maximum number of listings in which an object is missing. */
  readonly lag: number;
}

export const NO_FAULTS: Faults = { lost: 0, late: 0, damaged: 0, lag: 0 };
export const ALL_FAULTS: Faults = { lost: 0.1, late: 0.1, damaged: 0.03, lag: 3 };
/** For tests of snapshots and marks, which need listings that are up to date. */
export const PROMPT_FAULTS: Faults = { ...ALL_FAULTS, lag: 0 };

/** The maximum duration of something, in turns of the event loop. */
const TURNS_MAX = 6;
const LATE_TURNS_MAX = 400;

/** A client that can die. */
export class Client implements ObjectStore {
  readonly name = "s3://bucket/disk";
  /** How many operations have begun. */
  operations = 0;
  /** The client dies when it begins this operation; with `isApplied` the bucket still gets the operation. */
  death: { readonly operation: number; readonly isApplied: boolean } | undefined;
  isDead = false;
  readonly #death = Promise.withResolvers<void>();
  readonly #random: Random;

  constructor(
    readonly bucket: Bucket,
    readonly faults: Faults = NO_FAULTS,
    seed = 1,
  ) {
    this.#random = new Random(seed);
  }

  /** Settles when the client dies. */
  get died(): Promise<void> {
    return this.#death.promise;
  }

  async create(key: string, body: Uint8Array<ArrayBuffer>): Promise<PutResult> {
    for (;;) {
      await this.#begin(() => this.#put(key, body));
      await this.#delay();
      if (this.#happens(this.faults.late)) {
        const copy = body.slice();
        void turns(this.#random.below(LATE_TURNS_MAX)).then(() => this.#put(key, copy));
        continue;
      }
      if (this.#happens(this.faults.lost / 2)) continue;
      const result = this.#put(key, body);
      if (this.#happens(this.faults.lost)) continue;
      await this.#delay();
      return this.#alive(result);
    }
  }

  async get(key: string, start: number, length: number): Promise<Uint8Array | undefined> {
    await this.#begin();
    await this.#delay();
    const bytes = this.bucket.objects.get(key)?.slice(start, start + length);
    if (bytes !== undefined && bytes.length > 1 && this.#happens(this.faults.damaged)) {
      const at = this.#random.below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#random.below(8));
    }
    await this.#delay();
    return this.#alive(bytes);
  }

  async *list(prefix: string, after = ""): AsyncIterable<Listed> {
    await this.#begin();
    await this.#delay();
    const { objects, unseen, ghosts } = this.bucket;
    const isShown = (key: string): boolean => {
      const left = unseen.get(key) ?? 0;
      if (left > 0) unseen.set(key, left - 1);
      return left === 0;
    };
    const isGhost = (key: string): boolean => {
      const left = ghosts.get(key) ?? 0;
      ghosts.set(key, left - 1);
      return left > 0;
    };
    const keys = [...objects.keys()].filter(isShown).concat([...ghosts.keys()].filter(isGhost));
    for (const key of [...new Set(keys)].toSorted())
      if (key.startsWith(prefix) && key > after) yield { key, size: objects.get(key)?.length ?? 0 };
    await this.#alive(undefined);
  }

  async remove(key: string): Promise<void> {
    const remove = (): void => {
      this.bucket.objects.delete(key);
      this.bucket.ghosts.set(key, this.#random.below(this.faults.lag + 1));
    };
    await this.#begin(remove);
    await this.#delay();
    remove();
    return this.#alive(undefined);
  }

  #put(key: string, body: Uint8Array): PutResult {
    const result = this.bucket.put(key, body);
    if (result === "created") this.bucket.unseen.set(key, this.#random.below(this.faults.lag + 1));
    return result;
  }

  /** @param apply what the bucket still gets if the client dies at this operation. */
  async #begin(apply: () => unknown = () => undefined): Promise<void> {
    if (this.count() && this.death?.isApplied === true) apply();
    await this.#alive(undefined);
  }

  /** Counts an operation, perhaps of another part of the same machine. Returns whether the client dies at it. */
  count(): boolean {
    const dies = this.operations === this.death?.operation && !this.isDead;
    if (dies) this.die();
    this.operations += 1;
    return dies;
  }

  die(): void {
    this.isDead = true;
    this.#death.resolve();
  }

  /** A dead client gets no answer. */
  #alive<T>(value: T): Promise<T> | T {
    return this.isDead ? new Promise<never>(() => undefined) : value;
  }

  async #delay(): Promise<void> {
    await turns(this.#random.below(TURNS_MAX));
    await this.#alive(undefined);
  }

  #happens(likelihood: number): boolean {
    return likelihood > 0 && this.#random.below(1_000_000) < likelihood * 1_000_000;
  }
}

/** A client that has something else happen before each of its operations. */
export class Interrupted extends Client {
  /** How many operations have begun since it was set. */
  begun = 0;
  readonly #before: (operation: number) => Promise<void>;

  constructor(bucket: Bucket, before: (operation: number) => Promise<void>) {
    super(bucket);
    this.#before = before;
  }

  override async create(key: string, body: Uint8Array<ArrayBuffer>): Promise<PutResult> {
    await this.#step();
    return super.create(key, body);
  }

  override async get(key: string, start: number, length: number): Promise<Uint8Array | undefined> {
    await this.#step();
    return super.get(key, start, length);
  }

  override async *list(prefix: string, after?: string): AsyncIterable<Listed> {
    await this.#step();
    yield* super.list(prefix, after);
  }

  override async remove(key: string): Promise<void> {
    await this.#step();
    return super.remove(key);
  }

  async #step(): Promise<void> {
    this.begun += 1;
    await this.#before(this.begun - 1);
  }
}

/** Waits until nothing can be on its way any more. */
export function lateOnes(): Promise<void> {
  return turns(LATE_TURNS_MAX + 100);
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
