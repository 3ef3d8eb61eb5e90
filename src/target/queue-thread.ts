/** The thread of a queue of a node, whichever driver the node is of. */
import { nbdOnThread, type NbdOnThread } from "../nbd/node/connection-thread.ts";
import type { ConnectionEnd } from "../nbd/node/kernel-connection.ts";
import { type OpenShared, serveThread } from "../queues/thread.ts";
import { type LeftRing, ublkOnThread, type UblkOnThread } from "../ublk/queue/on-thread.ts";

/** The worker's side of it: see queues/thread.ts. */
export function serveQueueThread(worker: Worker, open: OpenShared): void {
  serveThread<NbdOnThread | UblkOnThread, ConnectionEnd | LeftRing | undefined>(
    worker,
    open,
    (place, ...rest) => (place.driver === "nbd" ? nbdOnThread(place, ...rest) : ublkOnThread(place, ...rest)),
  );
}
