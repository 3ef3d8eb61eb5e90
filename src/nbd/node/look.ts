/**
 * How often the block layer looks after a request of a node that waits for servers: what was with one that is gone is
 * asked of the next one no sooner. Each look at a request that takes longer is a line in the kernel's log.
 *
 * The driver sets it anew with each attachment. To change it the kernel waits until no request is in flight: never to
 * be done by a thread that serves the node.
 */
import { writeFileSync } from "node:fs";
import { inCurrentRoot } from "../../libc/root.ts";
import { readNumber } from "../../libc/sysfs.ts";

const WAITING_MS = 1000;
/** The block layer's own. */
const USUAL_MS = 30_000;

export function lookOften(name: string): void {
  setLook(name, WAITING_MS);
}

/** Of a node that is disconnected: nothing is in flight. */
export function lookAsUsual(name: string): void {
  setLook(name, USUAL_MS);
}

function setLook(name: string, milliseconds: number): void {
  const path = `/sys/block/${name}/queue/io_timeout`;
  if (readNumber(path) === milliseconds) return;
  try {
    writeFileSync(inCurrentRoot(path), String(milliseconds));
  } catch {
    // A sysfs that is read-only: what was in flight waits for thirty seconds then.
  }
}
