/**
 * Marks of readers of a past state of a disk. While a mark exists, the writer keeps the segments that it covers. A
 * reader makes its mark before it opens the disk, and replaces it from time to time. A mark that has not been renewed
 * for a day is ignored. Clocks are good enough for that: no store serves a machine whose clock is wrong by more than
 * some minutes.
 */
import { hostname } from "node:os";
import { newName, READER_PREFIX } from "./format.ts";
import type { ObjectStore } from "./parts.ts";
import { StoreError } from "./store-error.ts";

const EXPIRY_MS = 24 * 60 * 60_000;
const RENEW_MS = 60_000;
/** An attempt to renew it ends before the next begins. */
const RENEW_MS_MAX = 30_000;
const REMOVE_MS_MAX = 5000;
const TIME_DIGITS = 12;
/** Covers everything in the log, now and later. */
const EVERYTHING = 2 ** 48 - 1;

/** What the marks of all readers need. */
export interface Marks {
  /** Segments up to this number are kept; 0: none. */
  readonly upTo: number;
  /** Keys of expired marks. */
  readonly expired: readonly string[];
}

/** @throws StoreError */
export async function readMarks(store: ObjectStore, signal?: AbortSignal): Promise<Marks> {
  const expired: string[] = [];
  let upTo = 0;
  // Taken before the listing: this machine may be stopped for a day while the answer comes.
  const now = Date.now();
  for await (const { key } of store.list(READER_PREFIX, undefined, signal)) {
    const [, time, number] = /^reader\/([0-9a-f]{12})\.([0-9a-f]{12})\.[0-9a-f]{32}$/.exec(key) ?? [];
    if (time === undefined || number === undefined) continue;
    if (now - Number.parseInt(time, 16) > EXPIRY_MS) expired.push(key);
    else upTo = Math.max(upTo, Number.parseInt(number, 16));
  }
  return { upTo, expired };
}

export class ReaderMark {
  readonly #closed = new AbortController();
  #key: string | undefined;
  #upTo = EVERYTHING;
  /** When the newest mark was made. */
  #time = Date.now();
  /** There was a time without a mark: the process, or the machine, was stopped. */
  #hasLapsed = false;
  #isLeft = false;
  #renewing: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(
    readonly store: ObjectStore,
    readonly log: (line: string) => void,
  ) {}

  /**
   * Keeps everything from now on. If the credentials do not allow that, logs it and makes no mark.
   * @throws StoreError
   */
  static async make(store: ObjectStore, log: (line: string) => void): Promise<ReaderMark | undefined> {
    try {
      return await ReaderMark.must(store, log);
    } catch (error) {
      if (!(error instanceof StoreError) || error.kind !== "refused") throw error;
      log(
        `no mark of a reader can be made (${error.message}): reads fail once the writer of the disk removes what it replaces`,
      );
      return undefined;
    }
  }

  /** Like {@link make}, but fails without a mark. @throws StoreError */
  static async must(store: ObjectStore, log: (line: string) => void): Promise<ReaderMark> {
    const mark = new ReaderMark(store, log);
    await mark.#put(mark.#newKey());
    mark.#timer = setInterval(() => mark.#renewNext(), RENEW_MS);
    mark.#timer.unref();
    return mark;
  }

  /** From the next renewal on, keeps no more than the segments up to this number. */
  narrow(upTo: number): void {
    this.#upTo = upTo;
    this.#renewNext();
  }

  /** Leaves the mark until it expires, instead of removing it on close. */
  leave(): void {
    this.#isLeft = true;
  }

  /** True if nothing that it covers can have been removed. */
  get holds(): boolean {
    return !this.#hasLapsed && this.#isFresh();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closed.abort();
    await this.#renewing;
    if (this.#key !== undefined && !this.#isLeft) await this.#remove(this.#key);
  }

  /** One renewal after the other: each removes the mark made before it. */
  #renewNext(): void {
    this.#renewing = this.#renewing.then(() => this.#renew());
  }

  /** Never rejects: the next attempt may succeed, and the mark is valid for a day. */
  async #renew(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const signal = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(RENEW_MS_MAX)]);
    const [before, key] = [this.#key, this.#newKey()];
    try {
      await this.#put(key, signal);
    } catch (error) {
      if (!signal.aborted) this.log(`the mark of a reader is not renewed: ${String(error)}`);
      // It may have been made nevertheless.
      if (this.#closed.signal.aborted) await this.#remove(key);
      return;
    }
    if (before !== undefined) await this.#remove(before);
  }

  #newKey(): string {
    const time = Date.now().toString(16).padStart(TIME_DIGITS, "0");
    const number = this.#upTo.toString(16).padStart(TIME_DIGITS, "0");
    return `${READER_PREFIX}${time}.${number}.${newName()}`;
  }

  async #put(key: string, signal?: AbortSignal): Promise<void> {
    const now = Date.now();
    // Its name is unique, so it is ours even if an earlier try made it.
    await this.store.create(
      key,
      new TextEncoder().encode(`process ${process.pid} on ${hostname()}\n`),
      signal,
    );
    if (!this.#isFresh()) this.#hasLapsed = true;
    this.#key = key;
    this.#time = now;
  }

  /** Half of the expiry time, because clocks differ, and a PUT takes time. */
  #isFresh(): boolean {
    return Date.now() - this.#time < EXPIRY_MS / 2;
  }

  async #remove(key: string): Promise<void> {
    try {
      await this.store.remove(key, AbortSignal.timeout(REMOVE_MS_MAX));
    } catch {
      // It will expire.
    }
  }
}
