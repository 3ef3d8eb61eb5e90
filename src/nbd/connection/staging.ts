/**
 * The staging area of a tight connection: payloads on their way from or to a device that is not memory. It has room
 * for the longest payload, and takes memory as it is used; what is used beyond a small part is counted.
 *
 * Payloads follow one another, and the area is used from its start again once all of them have been sent. While some
 * are lent to a device that takes its time, it is used round and round, in segments: one that has a payload that is
 * lent is not entered.
 */
import type { Memory } from "../../libc/memory.ts";
import { MAX_PAYLOAD } from "../wire/codec.ts";
import { ViewCache } from "../../serving/view-cache.ts";

/** Bytes of the area. */
export const STAGING_BYTES = MAX_PAYLOAD;
/** Bytes that every connection has for good. */
const KEPT_BYTES = 2 * 2 ** 20;
/** Memory is asked for, and used round and round, in pieces of this many bytes. */
const SEGMENT_BYTES = 256 * 1024;
/** Where a payload is put: what O_DIRECT asks of an address. */
const ALIGNMENT = 4096;

/** Memory for long payloads, shared by the connections of a server: those who get none now ask again. */
export class StagingBudget {
  #left: number;

  /** @param bytes what all of them together may have, beside what each keeps. */
  constructor(bytes: number) {
    this.#left = bytes;
  }

  /** Returns false, and gives nothing, when there is not so much left. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

export class Staging {
  /** Bytes in use, from the start of the area. */
  used = 0;
  readonly #memory: Memory;
  readonly #start: number;
  readonly #budget: StagingBudget | undefined;
  readonly #views: ViewCache;
  /** Bytes that may be used without asking. */
  #granted = KEPT_BYTES;
  /** How many payloads of each segment are lent, and how many of all. */
  readonly #lent = new Uint32Array(STAGING_BYTES / SEGMENT_BYTES);
  #lentCount = 0;

  /** @param start where the area begins in `memory`, in bytes. */
  constructor(memory: Memory, start: number, budget: StagingBudget | undefined) {
    this.#memory = memory;
    this.#start = start;
    this.#budget = budget;
    this.#views = new ViewCache(memory.bytes().buffer, start, ALIGNMENT);
  }

  /** The address of the next payload. */
  get address(): number {
    return this.addressOf(this.used);
  }

  addressOf(position: number): number {
    return this.#memory.address + this.#start + position;
  }

  /** Whether payloads are lent: nothing of the area may be given back. */
  get isLent(): boolean {
    return this.#lentCount > 0;
  }

  /** Whether `length` more bytes can be used without asking for them. */
  has(length: number): boolean {
    if (this.used + length > this.#granted) return false;
    return this.#lentCount === 0 || this.#isFree(Math.ceil(this.used / SEGMENT_BYTES), length);
  }

  /**
   * Makes room for a payload of `length` bytes. Nothing may be in use but what is lent. Returns false when there is
   * none to be had now.
   */
  grow(length: number): boolean {
    if (this.#lentCount === 0) return this.#grant(this.used + length);
    const start = this.#granted;
    const wraps = length <= start && this.#isFree(0, length);
    if (!wraps && !this.#grant(start + length)) return false;
    this.used = wraps ? 0 : start;
    return true;
  }

  /** The payload stays where it is until {@link takeBack}, whatever becomes of those around it. */
  lend(position: number, length: number): void {
    this.#count(position, length, 1);
    this.used = Math.max(this.used, position + aligned(length));
  }

  takeBack(position: number, length: number): void {
    this.#count(position, length, -1);
  }

  /** What was used has been sent, but for what is lent. */
  sent(): void {
    if (this.#lentCount === 0) this.used = 0;
  }

  /** The `length` bytes at `position`. */
  view(position: number, length: number): Uint8Array {
    return this.#views.view(position, length);
  }

  /** The next `length` bytes are in use, until they are {@link sent}. */
  advance(length: number): void {
    this.used += aligned(length);
  }

  /** Gives back what was asked for. Nothing of it may be in use. */
  shrink(): void {
    const beyond = this.#granted - KEPT_BYTES;
    if (beyond === 0) return;
    this.#memory.discard(this.#start + KEPT_BYTES, beyond);
    this.#budget?.give(beyond);
    this.#granted = KEPT_BYTES;
  }

  #count(position: number, length: number, change: 1 | -1): void {
    const last = Math.floor((position + length - 1) / SEGMENT_BYTES);
    for (let segment = Math.floor(position / SEGMENT_BYTES); segment <= last; segment += 1)
      this.#lent[segment] = (this.#lent[segment] ?? 0) + change;
    this.#lentCount += change;
  }

  /** Whether nothing is lent from the start of a segment up to where a payload of `length` bytes would end. */
  #isFree(first: number, length: number): boolean {
    const start = first === 0 ? 0 : this.used;
    const last = Math.floor((start + length - 1) / SEGMENT_BYTES);
    for (let segment = first; segment <= last; segment += 1) if (this.#lent[segment] !== 0) return false;
    return true;
  }

  /** Asks for the first `bytes` of the area, in whole segments. */
  #grant(bytes: number): boolean {
    const more = Math.ceil(bytes / SEGMENT_BYTES) * SEGMENT_BYTES - this.#granted;
    if (more <= 0) return true;
    if (this.#granted + more > STAGING_BYTES || this.#budget?.take(more) === false) return false;
    this.#granted += more;
    return true;
  }
}

function aligned(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}
