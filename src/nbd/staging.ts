/**
 * The staging area of a tight connection: payloads on their way from or to a device that is not memory. It has room
 * for the longest payload, and takes memory as it is used; what is used beyond a small part is counted.
 */
import type { Memory } from "../libc/memory.ts";
import { MAX_PAYLOAD } from "./protocol.ts";
import { ViewCache } from "./view-cache.ts";

/** Bytes of the area. */
export const STAGING_BYTES = MAX_PAYLOAD;
/** Bytes that every connection has for good. */
const KEPT_BYTES = 2 * 2 ** 20;
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

  /** @param start where the area begins in `memory`, in bytes. */
  constructor(memory: Memory, start: number, budget: StagingBudget | undefined) {
    this.#memory = memory;
    this.#start = start;
    this.#budget = budget;
    this.#views = new ViewCache(memory.bytes().buffer, start, ALIGNMENT);
  }

  /** The address of the next payload. */
  get address(): number {
    return this.#memory.address + this.#start + this.used;
  }

  /** Whether `length` more bytes can be used without asking for them. */
  has(length: number): boolean {
    return this.used + length <= this.#granted;
  }

  /** Asks for as much as a payload of `length` bytes needs. Returns false when it is not to be had now. */
  grow(length: number): boolean {
    const more = this.used + length - this.#granted;
    if (more <= 0) return true;
    if (this.#budget?.take(more) === false) return false;
    this.#granted += more;
    return true;
  }

  /** The `length` bytes at `position`. */
  view(position: number, length: number): Uint8Array {
    return this.#views.view(position, length);
  }

  /** The next `length` bytes are in use, until `used` is set back. */
  advance(length: number): void {
    this.used += Math.ceil(length / ALIGNMENT) * ALIGNMENT;
  }

  /** Gives back what was asked for. Nothing of it may be in use. */
  shrink(): void {
    const beyond = this.#granted - KEPT_BYTES;
    if (beyond === 0) return;
    this.#memory.discard(this.#start + KEPT_BYTES, beyond);
    this.#budget?.give(beyond);
    this.#granted = KEPT_BYTES;
  }
}
