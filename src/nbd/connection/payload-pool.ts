/**
 * Memory for payloads on their way from or to a device that is not memory: one pool for all its connections. Buffers
 * have sizes of powers of two, are reused, and are counted.
 *
 * A little of it is reserved for each user, so that short requests need not wait for others. All users share the rest:
 * none gets a second long payload while more than half of it is in use or somebody waits for a first one, and those who
 * wait are served in turn.
 *
 * They are ordinary ArrayBuffers: a device that keeps one after giving it back may corrupt data, but nothing else.
 */
import { ptr } from "bun:ffi";
import { discardPages } from "../../libc/memory.ts";

/** The alignment that O_DIRECT requires of an address, and the smallest buffer. */
const ALIGNMENT = 4096;
const MIB = 2 ** 20;
/** Free buffers to keep for later requests, in bytes. */
const KEPT_BYTES = 32 * MIB;
/** The part of them that keeps its pages while the connections rest, in bytes. */
const KEPT_PAGES_BYTES = 2 * MIB;

/** Memory that a user always gets, however much others have, in bytes. */
const RESERVED_BYTES = MIB;
/** What all users together can have of that beyond the limit. Buffers that a device never gives back count, too. */
const RESERVED_TOTAL_BYTES = 128 * MIB;
/** Memory that one user can have; a single larger buffer is the exception. */
const USER_BYTES = 64 * MIB;

export class PayloadBuffer {
  /** Bytes, aligned to a page; the address does not change. */
  readonly address: number;
  /** Its current user. */
  user: PoolUser | undefined;
  /** Whether it has pages. */
  hasPages = true;
  readonly #pool: PayloadPool;
  readonly #whole: Uint8Array;
  #view: Uint8Array;

  constructor(
    readonly capacity: number,
    pool: PayloadPool,
  ) {
    this.#pool = pool;
    const room = new Uint8Array(new ArrayBuffer(capacity + ALIGNMENT));
    const start = (ALIGNMENT - (ptr(room) % ALIGNMENT)) % ALIGNMENT;
    this.#whole = room.subarray(start, start + capacity);
    this.#view = this.#whole;
    this.address = ptr(this.#whole);
  }

  /** The first `length` bytes. */
  view(length: number): Uint8Array {
    if (this.#view.length !== length) this.#view = this.#whole.subarray(0, length);
    return this.#view;
  }

  /** Gives the buffer back to its pool. Nobody may use it afterwards. */
  release(): void {
    this.#pool.give(this);
  }
}

/** A user of buffers: a connection. */
export interface PoolUser {
  /** Bytes that it has; only the pool changes it. */
  pooledBytes: number;
  /** Called after a refusal, when another try may succeed. */
  memoryFreed(): void;
}

export class PayloadPool {
  /** Bytes in use. */
  usedBytes = 0;
  #keptBytes = 0;
  /** By the logarithm of the capacity. */
  readonly #free: PayloadBuffer[][] = Array.from({ length: 32 }, () => []);
  /** Users that were refused, in the order of their requests. */
  readonly #waiting = new Set<PoolUser>();

  /** @param limit bytes that may be in use, besides those reserved for each user. */
  constructor(readonly limit: number) {}

  /** Whether somebody waits for memory that others have. */
  get isShort(): boolean {
    return this.#waiting.size > 0;
  }

  /** Allocates `count` buffers of each size up to `bytes`, with their pages. */
  fill(count: number, bytes: number): void {
    for (let size = sizeOf(1); size <= sizeOf(bytes); size += 1) {
      for (let index = 0; index < count; index += 1) {
        const buffer = new PayloadBuffer(2 ** size, this);
        buffer.view(buffer.capacity).fill(1);
        this.#free[size]?.push(buffer);
        this.#keptBytes += buffer.capacity;
      }
    }
  }

  /** A buffer of at least `length` bytes; undefined if there is none now: the user will be told. */
  take(length: number, user: PoolUser): PayloadBuffer | undefined {
    const size = sizeOf(length);
    const capacity = 2 ** size;
    if (!this.#allows(capacity, user)) {
      this.#waiting.add(user);
      return undefined;
    }
    if (this.#waiting.size > 0 && this.#waiting.delete(user)) this.#wake();
    this.usedBytes += capacity;
    user.pooledBytes += capacity;
    const found = this.#free[size]?.pop();
    if (found !== undefined) this.#keptBytes -= capacity;
    const buffer = found ?? new PayloadBuffer(capacity, this);
    buffer.user = user;
    buffer.hasPages = true;
    return buffer;
  }

  /** Takes a buffer back: see {@link PayloadBuffer.release}. */
  give(buffer: PayloadBuffer): void {
    const { capacity, user } = buffer;
    if (user === undefined) return;
    buffer.user = undefined;
    this.usedBytes -= capacity;
    user.pooledBytes -= capacity;
    if (this.#keptBytes + capacity <= KEPT_BYTES) {
      this.#free[sizeOf(capacity)]?.push(buffer);
      this.#keptBytes += capacity;
    }
    if (this.#waiting.size > 0) this.#wake();
  }

  /** The user is gone and waits for nothing. */
  forget(user: PoolUser): void {
    if (this.#waiting.delete(user)) this.#wake();
  }

  /** Frees the pages of most free buffers; a buffer gets new ones as it is used. Call it at a quiet moment. */
  rest(): void {
    let kept = 0;
    for (const buffers of this.#free) {
      for (const buffer of buffers) {
        if (!buffer.hasPages) continue;
        kept += buffer.capacity;
        if (kept <= KEPT_PAGES_BYTES) continue;
        discardPages(buffer.address, buffer.capacity);
        buffer.hasPages = false;
      }
    }
  }

  #allows(capacity: number, user: PoolUser): boolean {
    const mine = user.pooledBytes + capacity;
    const all = this.usedBytes + capacity;
    if (mine <= RESERVED_BYTES) return all <= this.limit + RESERVED_TOTAL_BYTES;
    if (all > this.limit) return false;
    if (user.pooledBytes <= RESERVED_BYTES) return this.#isNext(user);
    const othersWait = this.#waiting.size > (this.#waiting.has(user) ? 1 : 0);
    return mine <= USER_BYTES && !othersWait && all <= Math.max(this.limit / 2, mine);
  }

  /** Whether nobody has waited longer. Users who already have long payloads hold nobody up. */
  #isNext(user: PoolUser): boolean {
    for (const other of this.#waiting) {
      if (other === user) return true;
      if (other.pooledBytes <= RESERVED_BYTES) return false;
    }
    return true;
  }

  /** Lets each try again in order; a user keeps its place until it gets something, or wants nothing. */
  #wake(): void {
    for (const user of this.#waiting) user.memoryFreed();
  }
}

/** The logarithm of the capacity for `length` bytes. */
function sizeOf(length: number): number {
  return length <= ALIGNMENT ? 12 : 32 - Math.clz32(length - 1);
}
