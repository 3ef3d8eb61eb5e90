/**
 * Leaving the driver a ring in order. Where rings were closed under load, now and then a request hung until its
 * time-out, half a minute (seen on Linux 6.12): it seems that the driver loses sight of one that is on its way to a
 * thread when the thread's ring is closed. So what users still have to ask comes first: their requests are not answered
 * any more, and they soon have no more to make. And to the driver a server is gone when its thread is: the ring is
 * closed after that.
 */
import type { Ring } from "../../libc/uring.ts";

/** It is quiet when no request has come for so long, in milliseconds. */
const QUIET_MS = 2;
/** Users who have not all been answered need not become quiet. */
const LIMIT_MS = 50;

/**
 * Submits the last answers, and drops the requests that come until it is quiet: the next server gets them. The ring's
 * descriptor is left to the caller.
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
