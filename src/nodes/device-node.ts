/** Device nodes in /dev, for systems where neither devtmpfs nor udev makes them. */
import { type Stats, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { mknod } from "../libc/file.ts";
import { deviceNumbers, readAttribute } from "../libc/sysfs.ts";
import { errno } from "../uapi/errno.ts";
import { S_IFBLK, S_IFCHR } from "../uapi/unistd.ts";

const TYPES = { block: S_IFBLK, character: S_IFCHR } as const;

/**
 * Makes sure that a node exists and is the right device; makes it with mknod(2) if necessary.
 * @param path `/dev/nbd0`.
 * @param attribute the device's number, `MAJOR:MINOR`, as a file of sysfs: `/sys/block/nbd0/dev`.
 * @returns whether it was made.
 * @throws UserError if it is another device, or cannot be made.
 */
export function ensureNode(path: string, kind: keyof typeof TYPES, attribute: string): boolean {
  const [major, minor] = (readAttribute(attribute) ?? "").split(":").map(Number);
  if (major === undefined || minor === undefined)
    throw new UserError(`${path} is unavailable, the kernel has no such device: see "tsbuse doctor"`);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined) {
    if (isDevice(found, kind, major, minor)) return false;
    throw new UserError(`${path} is not the ${kind} device ${major}:${minor}: remove it, and run this again`);
  }
  const result = mknod(path, TYPES[kind], major, minor);
  if (result === 0) return true;
  // Another process was quicker.
  if (result === -errno.EEXIST) return ensureNode(path, kind, attribute);
  throw new UserError(
    `${path} does not exist and cannot be made (${errorText(-result)}): ${remedy(-result)}`,
  );
}

function isDevice(stats: Stats, kind: keyof typeof TYPES, major: number, minor: number): boolean {
  if (!(kind === "block" ? stats.isBlockDevice() : stats.isCharacterDevice())) return false;
  const numbers = deviceNumbers(stats.rdev);
  return numbers.major === major && numbers.minor === minor;
}

function remedy(number: number): string {
  if (number === errno.EPERM) return "run it as root, outside of a container (capability CAP_MKNOD)";
  return 'run "mount -t devtmpfs devtmpfs /dev", or make /dev writable';
}
