/**
 * How often the block layer looks after a request of a node that waits for servers: what was with one that is gone is
 * asked of the next one no sooner. Each look at a request that takes longer is a line in the kernel's log.
 *
 * The driver sets it anew with each attachment. To change it the kernel waits until no request is in flight.
 */
import { writeFileSync } from "node:fs";
import { inCurrentRoot } from "../../libc/root.ts";
import { readNumber } from "../../libc/sysfs.ts";
import { writeApart } from "../../nodes/apart.ts";

const WAITING_MS = 1000;
/** The block layer's own. */
const USUAL_MS = 30_000;

/** The kernel waits for what is in flight: so does another process. */
export async function lookOften(name: string): Promise<void> {
  // Of a sysfs that is read-only: what was in flight waits for thirty seconds then.
  if (readNumber(pathOf(name)) !== WAITING_MS)
    await writeApart(inCurrentRoot(pathOf(name)), String(WAITING_MS));
}

/** Of a node that is disconnected: nothing is in flight. */
export function lookAsUsual(name: string): void {
  if (readNumber(pathOf(name)) === USUAL_MS) return;
  try {
    writeFileSync(inCurrentRoot(pathOf(name)), String(USUAL_MS));
  } catch {
    // A sysfs that is read-only, which it was from the start.
  }
}

function pathOf(name: string): string {
  return `/sys/block/${name}/queue/io_timeout`;
}
