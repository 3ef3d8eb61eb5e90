/** Where swap can lie. Swapped pages must get there without memory that only swapping could free. */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { basename } from "node:path";
import { deviceNumbers, readAttribute } from "../../libc/sysfs.ts";

/** Disks that cannot hold swap, by their names in /sys/block, and why. */
const DISKS: readonly (readonly [name: RegExp, why: string])[] = [
  [/^(ram|zram|pmem)\d/, "is memory itself: give a disk"],
  [/^(nbd|ublkb)\d/, "is served by a program that may wait for memory: give a disk, or what that one serves"],
  [/^loop\d/, "is a file, whose file system takes memory for its journal: give a disk or a partition"],
];

/** Why swap cannot lie in a file or block device, with the remedy; undefined if it can. */
export function whyNoSwapAt(path: string, direct: boolean): string | undefined {
  const stats = statSync(path);
  if (!stats.isBlockDevice())
    return `${path} is a file, whose file system takes memory for its journal: give a disk or a partition`;
  if (!direct) return "the page cache would take memory for what is swapped out: add --direct";
  return whyNoSwapOn(stats.rdev);
}

function whyNoSwapOn(device: number): string | undefined {
  const { major, minor } = deviceNumbers(device);
  return whyNoSwapOnDisk(basename(readlinkSync(`/sys/dev/block/${major}:${minor}`)));
}

/** @param name of a disk or a partition. Checks each disk below a device mapper or an array. */
function whyNoSwapOnDisk(name: string): string | undefined {
  const bad = DISKS.find(([pattern]) => pattern.test(name));
  if (bad !== undefined) return `/dev/${name} ${bad[1]}`;
  for (const part of readdirSync(`/sys/class/block/${name}/${isPartition(name) ? "../slaves" : "slaves"}`)) {
    const why = whyNoSwapOnDisk(part);
    if (why !== undefined) return why;
  }
  return undefined;
}

function isPartition(name: string): boolean {
  return readAttribute(`/sys/class/block/${name}/partition`) !== undefined;
}
