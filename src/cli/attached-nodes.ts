/** Which nodes are attached, for the commands that show them or take them away. */
import { existsSync } from "node:fs";
import { nbdNodeState, nodeNames } from "../nbd/node/nodes.ts";
import type { NodeState } from "../nodes/node-state.ts";
import { Control } from "../ublk/control/control.ts";
import { isPrivileged } from "../nodes/privileges.ts";
import { deviceInfo, ublkIds, ublkNodeState } from "../ublk/nodes.ts";

/** The state of every NBD node; none without the driver, or without sysfs. */
export function nbdNodes(): NodeState[] {
  return existsSync("/sys/block") ? nodeNames().map(nbdNodeState) : [];
}

/** The state of every ublk device. Who serves it only root is told. */
export async function ublkNodes(): Promise<NodeState[]> {
  const ids = ublkIds();
  if (ids.length === 0 || !isPrivileged()) return ids.map((id) => ublkNodeState(id, undefined));
  const control = new Control();
  try {
    const states: NodeState[] = [];
    for (const id of ids) states.push(ublkNodeState(id, await deviceInfo(control, id)));
    return states;
  } finally {
    control.close();
  }
}

/** Also true of a node whose server is gone: it stays while something has it open. */
export function isAttached(state: NodeState): boolean {
  return state.attached || state.size !== 0;
}
