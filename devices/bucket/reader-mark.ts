/**
 * Marks of those who look at a disk as it was: while one is there, the writer keeps the segments that it covers. A
 * reader makes its mark before it opens the disk, and puts a new one in its place from time to time; one that has not
 * been renewed for a day is nobody's. Clocks are good enough for that: no store serves a machine whose clock is wrong
 * by more than some minutes.
 */
import { hostname } from "node:os";
import { newName, READER_PREFIX } from "./format.ts";
import type { ObjectStore } from "./parts.ts";
import { StoreError } from "./store-error.ts";

const EXPIRY_MS = 24 * 60 * 60_000;
const RENEW_MS = 60_000;
/** A try to renew it ends before the next one. */
const RENEW_MS_MAX = 30_000;
const REMOVE_MS_MAX = 5000;
const TIME_DIGITS = 12;
/** Covers what is in the log, and all that will be. */
const EVERYTHING = 2 ** 48 - 1;

/** What readers need. */
export interface Marks {
  /** Segments up to this number are kept; 0: none is. */
  readonly upTo: number;
  /** Keys of marks that are nobody's. */
  readonly expired: readonly string[];
}

/** @throws StoreError */
export async function readMarks(store: ObjectStore, signal?: AbortSignal): Promise<Marks> {
  const expired: string[] = [];
  let upTo = 0;
  // Before the answer: this machine may be stopped for a day while it comes.
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
  /** When the newest one was made. */
  #time = Date.now();
  /** There was a time without a mark: the process, or the machine, had stopped. */
  #hasLapsed = false;
  #isLeft = false;
  #renewing: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(
    readonly store: ObjectStore,
    readonly log: (line: string) => void,
  ) {}

  /**
   * Keeps everything, from now on. Where the credentials do not allow that, it says so and there is no mark.
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

  /** As {@link make}, for who cannot do without. @throws StoreError */
  static async must(store: ObjectStore, log: (line: string) => void): Promise<ReaderMark> {
    const mark = new ReaderMark(store, log);
    await mark.#put(mark.#newKey());
    mark.#timer = setInterval(() => mark.#renewNext(), RENEW_MS);
    mark.#timer.unref();
    return mark;
  }

  /** From the next renewal on, it keeps no more than the segments up to this number. */
  narrow(upTo: number): void {
    this.#upTo = upTo;
    this.#renewNext();
  }

  /** It stays until it expires, instead of being removed when it is closed. */
  leave(): void {
    this.#isLeft = true;
  }

  /** Whether nothing that it covers can have been removed. */
  get holds(): boolean {
    return !this.#hasLapsed && this.#isFresh();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closed.abort();
    await this.#renewing;
    if (this.#key !== undefined && !this.#isLeft) await this.#remove(this.#key);
  }

  /** One after the other: each removes the mark that was made before it. */
  #renewNext(): void {
    this.#renewing = this.#renewing.then(() => this.#renew());
  }

  /** Never rejects: the next try may succeed, and the mark is good for a day. */
  async #renew(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const signal = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(RENEW_MS_MAX)]);
    const [before, key] = [this.#key, this.#newKey()];
    try {
      await this.#put(key, signal);
    } catch (error) {
      if (!signal.aborted) this.log(`the mark of a reader is not renewed: ${String(error)}`);
      // It may have been made.
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
    // Whether it is made now or was by an earlier try, its name is nobody else's.
    await this.store.create(
      key,
      new TextEncoder().encode(`process ${process.pid} on ${hostname()}\n`),
      signal,
    );
    if (!this.#isFresh()) this.#hasLapsed = true;
    this.#key = key;
    this.#time = now;
  }

  /** Long before it expires: clocks differ, and a PUT takes its time. */
  #isFresh(): boolean {
    return Date.now() - this.#time < EXPIRY_MS / 2;
  }

  async #remove(key: string): Promise<void> {
    try {
      await this.store.remove(key, AbortSignal.timeout(REMOVE_MS_MAX));
    } catch {
      // It expires.
    }
  }
}
