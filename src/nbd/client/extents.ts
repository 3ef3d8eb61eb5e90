/** Converts a server's extents to whole blocks of the device. */
import type { Extent } from "../../device.ts";

/**
 * A server may count in bytes. A block that no single extent covers counts as data. Only an incomplete block at the end
 * is left for the next query, unless it is the first of all.
 */
export function wholeBlocks(extents: readonly Extent[], blockSize: number): readonly Extent[] {
  const whole: Extent[] = [];
  let [at, reached] = [0, 0];
  for (const { length, hole, zero } of extents) {
    reached += length;
    const first = Math.ceil((reached - length) / blockSize) * blockSize;
    const end = Math.floor(reached / blockSize) * blockSize;
    if (end <= first) continue;
    if (first > at) whole.push({ length: first - at, hole: false, zero: false });
    whole.push({ length: end - first, hole, zero });
    at = end;
  }
  return whole.length > 0 ? whole : [{ length: blockSize, hole: false, zero: false }];
}
