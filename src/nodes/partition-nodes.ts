/** The nodes of a disk's partitions, /dev/nbd0p1, where neither devtmpfs nor udev makes them. */
import { rmSync } from "node:fs";
import { ensureNode } from "./device-node.ts";
import { messageOf } from "../errors.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { partitionNames } from "./node-state.ts";

/**
 * Makes those that are missing. Returns their paths, for {@link removeNodes}.
 * @param log gets a line when one cannot be made: the disk can be used all the same.
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

/** What was made goes with the device: a node that is left would be that of whatever comes next. */
export function removeNodes(paths: readonly string[]): void {
  for (const path of paths) rmSync(inCurrentRoot(path), { force: true });
}
