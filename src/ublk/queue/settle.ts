/**
 * Leaves the driver a ring in order. When rings were closed under load, now and then a request hung until its time-out,
 * half a minute (seen on Linux 6.12): it seems that the driver loses a request that is on its way to a thread when the
 * thread's ring is closed. So the users come to rest first: their requests get no answers any more, and soon they have
 * none left to make. For the driver a server is gone when its thread is, so the ring is closed after that.
 */
import type { Ring } from "../../libc/uring.ts";

/** It is quiet when no request has arrived for this many milliseconds. */
const QUIET_MS = 2;
/** The limit of the wait, in milliseconds: users with answers still coming may not become quiet. */
const LIMIT_MS = 50;

/**
 * Submits the last answers, and drops the requests that arrive until it is quiet: the next server gets them. The ring's
 * descriptor remains the caller's.
 */
export function settle(ring: Ring): void {
  const began = performance.now();
  let quietSince = began;
  for (let now = began; now < quietSince + QUIET_MS && now < began + LIMIT_MS; now = performance.now()) {
    ring.enter(0);
    const count = ring.ready;
    ring.consume(count);
    if (count > 0) quietSince = now;
  }
  ring.abandon();
}
