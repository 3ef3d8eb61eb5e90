/** Which file this is, whatever it is called: for the `identity` of a device that serves it. */
import { fstatSync } from "node:fs";
import { deviceNumbers } from "./sysfs.ts";

/**
 * `254:1/1234/1795284449307258627` for a regular file: the numbers of its file system and of its inode, and when it was
 * made, in nanoseconds since 1970, since a file that is made next may get the inode of one that was removed; a file
 * system that does not know that leaves it out. `8:1` for a block device. Another link to the file has the same one, a
 * copy of it another.
 */
export function fileIdentity(fd: number): string {
  const stats = fstatSync(fd, { bigint: true });
  const isBlockDevice = stats.isBlockDevice();
  const { major, minor } = deviceNumbers(Number(isBlockDevice ? stats.rdev : stats.dev));
  if (isBlockDevice) return `${major}:${minor}`;
  const born = stats.birthtimeNs > 0n ? `/${stats.birthtimeNs}` : "";
  return `${major}:${minor}/${stats.ino}${born}`;
}
