/**
 * Whether a device answers. The driver resizes a node attached by netlink under a lock that other netlink families take
 * as well, and waits there for requests in flight. With a device that does not answer it would wait for ever, because
 * neither a kill nor a disconnect gets past that lock.
 */
import { readAttribute } from "../../libc/sysfs.ts";
import { requestsInFlight } from "../../nodes/node-state.ts";

const PATIENCE_MS = 5000;
const POLL_MS = 10;
/** Fields of /sys/block/nbdN/stat: answered reads, writes, discards and flushes. */
const ANSWERED = [0, 4, 11, 15] as const;

/** Waits, and returns true if requests are in flight and none was answered for `patienceMs`. */
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
