/**
 * Keeps a device that is memory from using up the system's: below a reserve no more is taken, so that a write fails
 * where otherwise the kernel would end processes to get memory.
 */
import { libc } from "tsbuse";

const MIB = 2 ** 20;

/** What is left to everybody else: a sixteenth of all memory, within these bounds in bytes. */
const RESERVE_MIN = 24 * MIB;
const RESERVE_MAX = 512 * MIB;
/** How much is taken before the system is looked at again, at most, in bytes. */
const ALLOWANCE_MAX = 64 * MIB;
/** And at most this part of what is there: others take memory meanwhile. */
const ALLOWANCE_PART = 1 / 4;

/** What can still be taken, in bytes, swap space included; not above zero when memory is low. */
export function spareMemory({ total, available, swapFree }: libc.MemoryInfo): number {
  return available + swapFree - Math.min(Math.max(total / 16, RESERVE_MIN), RESERVE_MAX);
}

/** One for each device. Looks at the system once in many writes, and at every one while memory is low. */
export class MemoryGuard {
  readonly #read: () => libc.MemoryInfo | undefined;
  /** What may be written before the next look. */
  #allowance = 0;

  constructor(read: () => libc.MemoryInfo | undefined = libc.memoryInfo) {
    this.#read = read;
  }

  /** Whether bytes that may take as much new memory can be written. */
  allows(bytes: number): boolean {
    this.#allowance -= bytes;
    return this.#allowance >= 0 || this.#look(bytes);
  }

  #look(bytes: number): boolean {
    const info = this.#read();
    // Without /proc there is nothing to go by.
    const spare = info === undefined ? Number.POSITIVE_INFINITY : spareMemory(info);
    this.#allowance = Math.max(0, Math.min(ALLOWANCE_MAX, spare * ALLOWANCE_PART));
    return bytes <= spare;
  }
}
