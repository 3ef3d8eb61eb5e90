/** States of nodes, made by hand. */
import type { NodeState } from "../../src/nodes/node-state.ts";

export const FREE: NodeState = {
  name: "nbd3",
  path: "/dev/nbd3",
  size: 0,
  blockSize: 512,
  readOnly: false,
  rotational: false,
  flush: false,
  fua: false,
  trim: false,
  writeZeroes: false,
  attached: false,
  leftBehind: false,
  waiting: false,
  identity: undefined,
  pid: undefined,
  command: undefined,
  mounts: [],
  holders: [],
  partitions: [],
};
