/** Which nodes are attached, for the commands that show them or take them away. */
import { existsSync } from "node:fs";
import { nbdNodeState, nodeNames } from "../nbd/nodes.ts";
import type { NodeState } from "../nodes/node-state.ts";

/** The state of every node; none without the driver, or without sysfs. */
export function allNodes(): NodeState[] {
  return existsSync("/sys/block") ? nodeNames().map(nbdNodeState) : [];
}

/** Also true of a node whose server is gone: it stays while something has it open. */
export function isAttached(state: NodeState): boolean {
  return state.attached || state.size !== 0;
}
