/**
 * Bringing to a device what the system still holds for it. It makes requests of the device and waits for the replies:
 * never to be done by a thread that serves it.
 */
import { close, fsync, open, syncfs } from "../libc/file.ts";
import { errno } from "../uapi/errno.ts";
import { O_RDONLY } from "../uapi/fcntl.ts";
import { mountsOf, partitionNames } from "./node-state.ts";

/** Writes back what mounted file systems, the disk and its partitions hold. Returns 0 or the first -errno. */
export function writeBack(name: string): number {
  for (const point of mountsOf(name)) syncMount(point);
  return Math.min(...[...partitionNames(name), name].map(syncNode));
}

/** fsync(2) of a disk or a partition: each has a page cache of its own. Returns 0 or -errno. */
function syncNode(name: string): number {
  const fd = open(`/dev/${name}`, O_RDONLY);
  // A partition that went away, or whose node was removed, holds nothing.
  if (fd < 0) return fd === -errno.ENOENT || fd === -errno.ENXIO ? 0 : fd;
  const result = fsync(fd);
  close(fd);
  return result;
}

/** syncfs(2). A mount point that cannot be opened is hidden beneath another mount: the fsync has to do. */
function syncMount(point: string): void {
  const fd = open(point, O_RDONLY);
  if (fd < 0) return;
  syncfs(fd);
  close(fd);
}
