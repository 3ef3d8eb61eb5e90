/** The NBD nodes of this system, /dev/nbdN. */
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

/** Why nobody may attach to the node, or undefined when it is free. */
export function whyBusy(state: NodeState): string | undefined {
  if (state.pid !== undefined) {
    const who = state.command === undefined ? "another process" : `"${state.command}"`;
    return `${state.path} is served by process ${state.pid}, ${who}: choose another node, or "auto"`;
  }
  const mount = state.mounts[0];
  if (mount !== undefined) return `${state.path} is mounted at ${mount}: unmount it first`;
  const holder = state.holders[0];
  if (holder !== undefined) return `${state.path} is held by ${holder}: release it there first`;
  if (state.attached || state.size !== 0) {
    return `${state.path} is still attached, though no server is to be seen: run "tsbuse disconnect ${state.path}"`;
  }
  return undefined;
}
