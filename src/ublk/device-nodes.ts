/** The nodes of a device, /dev/ublkcN and /dev/ublkbN, where neither devtmpfs nor udev makes them. */
import { ensureNode } from "../nodes/device-node.ts";
import { makePartitionNodes } from "../nodes/partition-nodes.ts";
import { blockName } from "./nodes.ts";

/** Both return the paths of the nodes that they made. @throws UserError if a required node cannot be made */
export function makeCharacterNode(id: number): string[] {
  const path = `/dev/ublkc${id}`;
  return ensureNode(path, "character", `/sys/class/ublk-char/ublkc${id}/dev`) ? [path] : [];
}

/** The disk and its partitions. */
export function makeBlockNodes(id: number, log: (line: string) => void = () => undefined): string[] {
  const name = blockName(id);
  const path = `/dev/${name}`;
  const disk = ensureNode(path, "block", `/sys/block/${name}/dev`) ? [path] : [];
  return [...disk, ...makePartitionNodes(name, log)];
}
