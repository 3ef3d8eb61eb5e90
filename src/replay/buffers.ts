/** Memory for requests in flight, aligned for direct I/O and reused. */
import { Memory } from "../libc/memory.ts";

export interface LentMemory {
  readonly memory: Memory;
  /** As many as were asked for. */
  readonly bytes: Uint8Array;
}

const LEAST = 4096;

export class BufferPool {
  /** Unused buffers, by size. Sizes are powers of two. */
  readonly #free = new Map<number, Memory[]>();

  /** @throws ErrnoError ENOMEM */
  take(length: number): LentMemory {
    const size = Math.max(LEAST, 2 ** Math.ceil(Math.log2(length)));
    const memory = this.#free.get(size)?.pop() ?? new Memory(size);
    return { memory, bytes: memory.bytes().subarray(0, length) };
  }

  giveBack({ memory }: LentMemory): void {
    const others = this.#free.get(memory.size) ?? [];
    others.push(memory);
    this.#free.set(memory.size, others);
  }

  /** To be called when all are given back. */
  close(): void {
    for (const memories of this.#free.values()) for (const memory of memories) memory.close();
    this.#free.clear();
  }
}
