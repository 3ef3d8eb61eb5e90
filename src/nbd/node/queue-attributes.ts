/**
 * What the block layer is told of a node's queue, by sysfs. The kernel waits until no request is in flight before it
 * changes an attribute, and who reads one waits with it, so that "lsblk" would hang with a device that does not answer.
 * That is why it is told before it knows the node's size: nobody can send a request to an empty disk.
 *
 * `io_timeout` is how long it lets a request be before it asks the driver what to do:
 * - Of a node with several connections the driver takes a slow one for dead then, though nobody has asked for a
 *   time-out, and gives the request to another one. There a request gets all the time that there is.
 * - Of a node that waits for servers it is how often the driver looks whether a request has to be sent to the next
 *   one. Each look at a request that takes longer is a line in the kernel's log.
 */
import { writeFileSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { readNumber } from "../../libc/sysfs.ts";
import type { NodeShape } from "./link.ts";

/** The longest that the kernel takes, in milliseconds: 24 days. */
const LONGEST_MS = 2 ** 31 - 1;
const LOOK_MS = 1000;
/** The block layer's own. */
const USUAL_MS = 30_000;

/** Returns what is to be said where sysfs is read-only and that matters. */
export function setQueueAttributes(
  name: string,
  { requestBytes, requestTimer }: Pick<NodeShape, "requestBytes" | "requestTimer">,
): string | undefined {
  // Without it the driver splits less, and requests find their memory when they come.
  if (requestBytes !== undefined) write(name, "max_sectors_kb", requestBytes / 1024);
  // Without it what was in flight waits for thirty seconds.
  if (requestTimer === "looks") write(name, "io_timeout", LOOK_MS);
  const failure = requestTimer === "off" ? write(name, "io_timeout", LONGEST_MS) : undefined;
  if (failure === undefined) return undefined;
  return `/dev/${name} is cut off when a request takes more than 30 s (${failure}): leave out --queues to avoid that`;
}

/** Of a node that has been disconnected: nothing is in flight. The next one who attaches it may not say otherwise. */
export function resetRequestTimer(name: string): void {
  if (readNumber(pathOf(name, "io_timeout")) !== USUAL_MS) write(name, "io_timeout", USUAL_MS);
}

/** Returns why it failed, if it did. */
function write(name: string, attribute: string, value: number): string | undefined {
  try {
    writeFileSync(inCurrentRoot(pathOf(name, attribute)), String(value));
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function pathOf(name: string, attribute: string): string {
  return `/sys/block/${name}/queue/${attribute}`;
}
