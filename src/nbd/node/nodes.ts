/** The NBD nodes of this system, /dev/nbdN. */
import { existsSync } from "node:fs";
import { attributeNames, readNumber } from "../../libc/sysfs.ts";
import { nodeState, type NodeState, processOf } from "../../nodes/node-state.ts";

/** `nbd0`, `nbd1` … in order; none when the driver is not loaded. */
export function nodeNames(): string[] {
  const names = attributeNames("/sys/block").filter((name) => /^nbd\d+$/.test(name));
  return names.toSorted((a, b) => nodeIndex(a) - nodeIndex(b));
}

export function nodeIndex(name: string): number {
  return Number(name.slice("nbd".length));
}

/** The thread that sits in NBD_DO_IT, or that made the attachment by netlink; undefined when nothing is attached. */
export function attachedThread(name: string): number | undefined {
  return readNumber(`/sys/block/${name}/pid`);
}

export function nbdNodeState(name: string): NodeState {
  const thread = attachedThread(name);
  const pid = thread === undefined ? undefined : processOf(thread);
  return nodeState(name, { attached: thread !== undefined, pid, waiting: false });
}

/** The state of every node; none without the driver, or without sysfs. */
export function nbdNodes(): NodeState[] {
  return existsSync("/sys/block") ? nodeNames().map(nbdNodeState) : [];
}
