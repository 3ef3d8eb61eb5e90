/**
 * Buffers for payloads on their way from or to a device. They come in sizes of powers of two, are used again, and
 * are counted: a pool never has more out than its limit, and one user never so much that others get nothing.
 *
 * They are ordinary ArrayBuffers: a device that keeps one after giving it back may spoil data, but nothing else.
 */
import { ptr } from "bun:ffi";

/** What O_DIRECT asks of an address, and the smallest buffer. */
const ALIGNMENT = 4096;
const MIB = 2 ** 20;
/** Free buffers that are kept for the next request, in bytes. */
const KEPT_BYTES = 32 * MIB;

/** Memory that a user always gets, however much others have. */
const RESERVED_BYTES = MIB;
/** What all users together can have of that beyond the limit: buffers that a device never gives back count too. */
const RESERVED_TOTAL_BYTES = 128 * MIB;
/** Memory that one user can have; a single larger buffer is the exception. */
const USER_BYTES = 64 * MIB;

export class PooledBuffer {
  /** Gives the buffer back to its pool. Nobody may touch it afterwards. */
  readonly release: () => void;
  /** Who has it. */
  user: PoolUser | undefined;
  readonly #whole: Uint8Array;
  #view: Uint8Array;

  constructor(
    readonly capacity: number,
    pool: BufferPool,
  ) {
    this.release = () => pool.give(this);
    const room = new Uint8Array(new ArrayBuffer(capacity + ALIGNMENT));
    const start = (ALIGNMENT - (ptr(room) % ALIGNMENT)) % ALIGNMENT;
    this.#whole = room.subarray(start, start + capacity);
    this.#view = this.#whole;
  }

  /** The first `length` bytes. */
  view(length: number): Uint8Array {
    if (this.#view.length !== length) this.#view = this.#whole.subarray(0, length);
    return this.#view;
  }
}

/** Whoever takes buffers: a connection. */
export interface PoolUser {
  /** Bytes that it has; the pool's to change. */
  pooledBytes: number;
  /** Called after a refusal, when it is worth another try. */
  memoryFreed(): void;
}

export class BufferPool {
  /** Bytes that are out. */
  usedBytes = 0;
  #keptBytes = 0;
  readonly #free = new Map<number, PooledBuffer[]>();
  readonly #waiting = new Set<PoolUser>();

  /** @param limit bytes that may be out, beside what is reserved for each user. */
  constructor(readonly limit: number) {}

  /** A buffer of at least `length` bytes; undefined when there is none now, and the user will be told. */
  take(length: number, user: PoolUser): PooledBuffer | undefined {
    const capacity = capacityFor(length);
    if (!this.#allows(capacity, user)) {
      this.#waiting.add(user);
      return undefined;
    }
    this.usedBytes += capacity;
    user.pooledBytes += capacity;
    const found = this.#free.get(capacity)?.pop();
    if (found !== undefined) this.#keptBytes -= capacity;
    const buffer = found ?? new PooledBuffer(capacity, this);
    buffer.user = user;
    return buffer;
  }

  /** Takes a buffer back: see {@link PooledBuffer.release}. */
  give(buffer: PooledBuffer): void {
    const { capacity, user } = buffer;
    if (user === undefined) return;
    buffer.user = undefined;
    this.usedBytes -= capacity;
    user.pooledBytes -= capacity;
    if (this.#keptBytes + capacity <= KEPT_BYTES) {
      const free = this.#free.get(capacity);
      if (free === undefined) this.#free.set(capacity, [buffer]);
      else free.push(buffer);
      this.#keptBytes += capacity;
    }
    if (this.#waiting.size > 0) this.#wake();
  }

  /** The user is gone and waits for nothing. */
  forget(user: PoolUser): void {
    this.#waiting.delete(user);
  }

  #allows(capacity: number, user: PoolUser): boolean {
    const after = user.pooledBytes + capacity;
    if (after <= RESERVED_BYTES) return this.usedBytes + capacity <= this.limit + RESERVED_TOTAL_BYTES;
    if (after > USER_BYTES && user.pooledBytes > 0) return false;
    return this.usedBytes + capacity <= this.limit;
  }

  #wake(): void {
    const users = [...this.#waiting];
    this.#waiting.clear();
    for (const user of users) user.memoryFreed();
  }
}

function capacityFor(length: number): number {
  return Math.max(ALIGNMENT, 2 ** Math.ceil(Math.log2(length)));
}
