/**
 * How long the block layer lets a request of a node be before it asks the driver what to do. Of a node with one
 * connection the driver says to go on waiting. Of one with several it takes the connection for dead and gives the
 * request to another one, though nobody has asked for a time-out: there it gets all the time that there is. The next
 * one who attaches the node says for himself how long it is to be.
 */
import { writeFileSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { inCurrentRoot } from "../../libc/root.ts";

/** The longest that the kernel takes, in milliseconds: 24 days. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * The kernel waits until no request is in flight: never to be called by a thread that answers them.
 * @returns what is to be said where it cannot be.
 */
export function stopRequestTimer(name: string): string | undefined {
  try {
    writeFileSync(inCurrentRoot(`/sys/block/${name}/queue/io_timeout`), String(LONGEST_MS));
    return undefined;
  } catch (error) {
    const reason = messageOf(error);
    return `/dev/${name} is cut off when a request takes more than 30 s (${reason}): leave out --queues to avoid that`;
  }
}
