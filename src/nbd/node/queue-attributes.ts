/**
 * The attributes of a node's queue, set through sysfs. The kernel changes an attribute only when no request is in
 * flight, and readers of attributes wait with it, so that "lsblk" would hang with a device that does not answer. So
 * they are set before the kernel knows the node's size: nobody can send a request to an empty disk.
 *
 * `io_timeout` is how long the block layer waits for a request before it asks the driver what to do:
 * - With several connections the driver then takes a slow one for dead, although nobody has asked for a time-out, and
 *   gives the request to another one. So there it is as long as possible.
 * - For a node that waits for servers it is the interval at which the driver checks whether it must send a request to
 *   the next one. Each check of a request that takes longer is a line in the kernel's log.
 */
import { writeFileSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { readNumber } from "../../libc/sysfs.ts";
import type { NodeShape } from "./link.ts";

/** The longest time that the kernel accepts, in milliseconds: 24 days. */
const LONGEST_MS = 2 ** 31 - 1;
const LOOK_MS = 1000;
/** The block layer's default. */
const USUAL_MS = 30_000;

/** Returns a warning if sysfs is read-only and that matters. */
export function setQueueAttributes(
  name: string,
  { requestBytes, requestTimer }: Pick<NodeShape, "requestBytes" | "requestTimer">,
): string | undefined {
  // Without it the kernel splits less, and memory for requests is allocated as they arrive.
  if (requestBytes !== undefined) write(name, "max_sectors_kb", requestBytes / 1024);
  // Without it requests in flight wait for thirty seconds.
  if (requestTimer === "looks") write(name, "io_timeout", LOOK_MS);
  const failure = requestTimer === "off" ? write(name, "io_timeout", LONGEST_MS) : undefined;
  if (failure === undefined) return undefined;
  return `/dev/${name} is cut off when a request takes more than 30 s (${failure}): leave out --queues to avoid that`;
}

/** Call it for a disconnected node, with nothing in flight: the next program to attach it may not set the timer. */
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
