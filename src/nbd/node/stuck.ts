/**
 * Whether a device answers. Of a node attached by netlink the driver takes another size under a lock that other netlink
 * families take as well, and waits there until what is in flight is answered: of a device that answers nothing it waits
 * for ever, for no kill and no disconnect comes past that lock.
 */
import { readAttribute } from "../../libc/sysfs.ts";
import { requestsInFlight } from "../../nodes/node-state.ts";

const PATIENCE_MS = 5000;
const POLL_MS = 10;
/** Places in /sys/block/nbdN/stat: reads, writes, discards and flushes that were answered. */
const ANSWERED = [0, 4, 11, 15] as const;

/** True when there are requests in flight, and none was answered for so long: it waits for that. */
export function isStuck(name: string, patienceMs = PATIENCE_MS): boolean {
  const deadline = performance.now() + patienceMs;
  const before = answered(name);
  while (requestsInFlight(name) > 0 && answered(name) === before) {
    if (performance.now() > deadline) return true;
    Bun.sleepSync(POLL_MS);
  }
  return false;
}

function answered(name: string): string {
  const fields = readAttribute(`/sys/block/${name}/stat`)?.trim().split(/\s+/) ?? [];
  return ANSWERED.map((place) => fields[place]).join(" ");
}
