/** Buffers of one overlay block each, aligned for direct I/O and reused. */
import { Memory } from "../libc/memory.ts";
import { OVERLAY_BLOCK } from "./block-map.ts";

/** How many are made at once. */
const BATCH = 16;

export class BlockBuffers {
  readonly #memories: Memory[] = [];
  readonly #free: Uint8Array[] = [];

  /** Its bytes are what they were. */
  take(): Uint8Array {
    return this.#free.pop() ?? this.#make();
  }

  giveBack(buffer: Uint8Array): void {
    this.#free.push(buffer);
  }

  /** A device that was given up on may still write to a buffer lent to it: that buffer is not reused. */
  close(): void {
    if (this.#free.length < this.#memories.length * BATCH) return;
    for (const memory of this.#memories) memory.close();
  }

  #make(): Uint8Array {
    const memory = new Memory(BATCH * OVERLAY_BLOCK);
    this.#memories.push(memory);
    const bytes = memory.bytes();
    for (let at = OVERLAY_BLOCK; at < bytes.length; at += OVERLAY_BLOCK)
      this.#free.push(bytes.subarray(at, at + OVERLAY_BLOCK));
    return bytes.subarray(0, OVERLAY_BLOCK);
  }
}
