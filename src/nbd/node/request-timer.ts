/**
 * How long the block layer lets a request of a node be before it asks the driver what to do. Of a node with one
 * connection the driver says to go on waiting. Of one with several it takes the connection for dead and gives the
 * request to another one, though nobody has asked for a time-out: there it gets all the time that there is. The next
 * one who attaches the node says for himself how long it is to be.
 */
import { errorText } from "../../libc/errno.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { writeApart } from "../../nodes/apart.ts";

/** The longest that the kernel takes, in milliseconds: 24 days. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * The kernel waits until no request is in flight: so does another process.
 * @returns what is to be said where it cannot be.
 */
export async function stopRequestTimer(name: string): Promise<string | undefined> {
  const path = `/sys/block/${name}/queue/io_timeout`;
  const result = await writeApart(inCurrentRoot(path), String(LONGEST_MS));
  if (result === 0) return undefined;
  return `/dev/${name} is cut off when a request takes more than 30 s (${path}: ${errorText(-result)}): leave out --queues to avoid that`;
}
