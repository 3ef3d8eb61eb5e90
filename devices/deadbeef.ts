/**
 * The smallest device: DE AD BE EF, over and over. It has no write method, so the node is read-only.
 */
import type { BlockDevice } from "tsbuse";

const PATTERN = [0xde, 0xad, 0xbe, 0xef] as const;

export class Deadbeef implements BlockDevice {
  readonly identity = "deadbeef";

  /** @param size in bytes; whole blocks. */
  constructor(readonly size: number) {}

  /** Blocks begin at multiples of 512, so every target begins with the start of the pattern. */
  read(target: Uint8Array): void {
    target.set(PATTERN);
    for (let filled = PATTERN.length; filled < target.length; filled *= 2)
      target.copyWithin(filled, 0, filled);
  }
}
