/** The nodes of a disk's partitions, /dev/nbd0p1, where neither devtmpfs nor udev makes them. */
import { rmSync } from "node:fs";
import { ensureNode } from "./device-node.ts";
import { messageOf } from "../errors.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { partitionNames } from "./node-state.ts";

/**
 * Makes those that are missing. Returns their paths, for {@link removeNodes}.
 * @param log gets a line if one cannot be made: the disk can be used nevertheless.
 */
export function makePartitionNodes(disk: string, log: (line: string) => void): string[] {
  const made: string[] = [];
  try {
    for (const name of partitionNames(disk)) {
      const path = `/dev/${name}`;
      if (ensureNode(path, "block", `/sys/block/${disk}/${name}/dev`)) made.push(path);
    }
  } catch (error) {
    log(messageOf(error));
  }
  return made;
}

/** Removes with the device what was made for it: a node left behind would belong to the next device. */
export function removeNodes(paths: readonly string[]): void {
  for (const path of paths) rmSync(inCurrentRoot(path), { force: true });
}
