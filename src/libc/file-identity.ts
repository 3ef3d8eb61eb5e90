/** Identifies a file regardless of its name: for the `identity` of a device that serves it. */
import { fstatSync } from "node:fs";
import { deviceNumbers } from "./sysfs.ts";

/**
 * `254:1/1234/1795284449307258627` for a regular file: the numbers of its file system and inode, and its creation time
 * in nanoseconds since 1970, because a new file may get the inode of a removed one. The time is absent if the file
 * system does not know it. `8:1` for a block device. Links to one file have the same identity, copies have different
 * ones.
 */
export function fileIdentity(fd: number): string {
  const stats = fstatSync(fd, { bigint: true });
  const isBlockDevice = stats.isBlockDevice();
  const { major, minor } = deviceNumbers(Number(isBlockDevice ? stats.rdev : stats.dev));
  if (isBlockDevice) return `${major}:${minor}`;
  const born = stats.birthtimeNs > 0n ? `/${stats.birthtimeNs}` : "";
  return `${major}:${minor}/${stats.ino}${born}`;
}
