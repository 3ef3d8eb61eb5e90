/** A table of `struct iovec` (readv(2)) in memory that C can read, filled without allocating. */
import { iovec } from "../uapi/socket.ts";

const WORD = 2 ** 32;
const WORDS_PER_ENTRY = iovec.size / 4;

export class IovecTable {
  /** The entries as C sees them: each is two little-endian 64-bit numbers, here four 32-bit words. */
  readonly words: Uint32Array;
  count = 0;

  constructor(readonly capacity: number) {
    this.words = new Uint32Array(new ArrayBuffer(capacity * iovec.size));
  }

  get full(): boolean {
    return this.count === this.capacity;
  }

  clear(): void {
    this.count = 0;
  }

  /** Appends `length` bytes at `address`. The table must not be full. */
  push(address: number, length: number): void {
    this.set(this.count, address, length);
    this.count += 1;
  }

  set(index: number, address: number, length: number): void {
    const at = index * WORDS_PER_ENTRY;
    // The remainder of a large number would call fmod(3).
    const addressHigh = Math.floor(address / WORD);
    const lengthHigh = Math.floor(length / WORD);
    this.words[at] = address - addressHigh * WORD;
    this.words[at + 1] = addressHigh;
    this.words[at + 2] = length - lengthHigh * WORD;
    this.words[at + 3] = lengthHigh;
  }

  address(index: number): number {
    const at = index * WORDS_PER_ENTRY;
    return (this.words[at] ?? 0) + (this.words[at + 1] ?? 0) * WORD;
  }

  length(index: number): number {
    const at = index * WORDS_PER_ENTRY + 2;
    return (this.words[at] ?? 0) + (this.words[at + 1] ?? 0) * WORD;
  }
}
