/**
 * Writing back what the system still holds for a device. This makes requests to the device and waits for the replies,
 * so a thread that serves the device must never wait for it: see apart.ts.
 */
import { errno } from "../uapi/errno.ts";
import { callApart } from "./apart.ts";
import { mountsOf, partitionNames } from "./node-state.ts";

/** Writes back what mounted file systems, the disk and its partitions hold. Returns 0 or the worst -errno. */
export async function writeBack(name: string): Promise<number> {
  // A mount point that cannot be opened is hidden beneath another mount: the fsync has to suffice.
  for (const point of mountsOf(name)) await callApart(point, "syncfs");
  let result = 0;
  for (const each of [...partitionNames(name), name]) result = Math.min(result, await syncNode(each));
  return result;
}

/** fsync(2) of a disk or a partition: each has a page cache of its own. Returns 0 or -errno. */
async function syncNode(name: string): Promise<number> {
  const result = await callApart(`/dev/${name}`, "fsync");
  // A partition that went away, or whose node was removed, holds nothing.
  return result === -errno.ENOENT || result === -errno.ENXIO ? 0 : result;
}
