/** Which file this is, whatever it is called: for the `identity` of a device that serves it. */
import { fstatSync } from "node:fs";
import { deviceNumbers } from "./sysfs.ts";

/**
 * `254:1/1234` for a regular file, the numbers of its file system and of its inode; `8:1` for a block device. Another
 * link to the file has the same one, a copy of it another.
 */
export function fileIdentity(fd: number): string {
  const stats = fstatSync(fd, { bigint: true });
  const isBlockDevice = stats.isBlockDevice();
  const { major, minor } = deviceNumbers(Number(isBlockDevice ? stats.rdev : stats.dev));
  return isBlockDevice ? `${major}:${minor}` : `${major}:${minor}/${stats.ino}`;
}
