/** The NBD nodes of this system, /dev/nbdN. */
import { existsSync } from "node:fs";
import { close, open } from "../../libc/file.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { attributeNames, readNumber } from "../../libc/sysfs.ts";
import { nodeState, type NodeState, processOf } from "../../nodes/node-state.ts";
import { hasOpen, isInitialPidNamespace, seesAllProcesses } from "../../nodes/openers.ts";
import { O_RDONLY } from "../../uapi/fcntl.ts";
import { NBD_PRINT_DEBUG } from "../../uapi/nbd.ts";
import { type Backend, backendOf, backendText, startOf } from "./backend.ts";
import { pathOf, seated } from "./seat.ts";

/** `nbd0`, `nbd1` … in order; none if the driver is not loaded. */
export function nodeNames(): string[] {
  const names = attributeNames("/sys/block").filter((name) => /^nbd\d+$/.test(name));
  return names.toSorted((a, b) => nodeIndex(a) - nodeIndex(b));
}

export function nodeIndex(name: string): number {
  return Number(name.slice("nbd".length));
}

/**
 * The thread that is or was in NBD_DO_IT, or that attached the node by netlink and may have ended since, by its ID in
 * the initial PID namespace; undefined if nothing is attached.
 */
export function attachedThread(name: string): number | undefined {
  return readNumber(`/sys/block/${name}/pid`);
}

export function nbdNodeState(name: string): NodeState {
  const thread = attachedThread(name);
  const backend = thread === undefined ? undefined : backendOf(name);
  if (thread !== undefined && backend !== undefined) return ownNodeState(name, thread, backend);
  const pid = thread === undefined ? undefined : serverOf(name, thread);
  return nodeState(name, { attached: thread !== undefined, leftBehind: false, pid, waiting: false });
}

/** The state of a node that tsbuse has attached by netlink. */
function ownNodeState(name: string, thread: number, backend: Backend): NodeState {
  const isMaker = backend.kind === "process" && startOf(thread) === backend.start;
  const pid = isMaker ? processOf(thread) : seated(name, processOf(thread));
  const isGone = pid === undefined && seesAllProcesses();
  const waits = backend.kind === "recoverable";
  return nodeState(name, {
    attached: !isGone,
    leftBehind: isGone && !waits,
    pid,
    waiting: isGone && waits,
    identity: waits ? backend.identity : undefined,
  });
}

/** The ID alone proves nothing: it may belong to another process by now, or in this namespace. */
function serverOf(name: string, thread: number): number | undefined {
  const pid = processOf(thread);
  if (pid === undefined) return undefined;
  // Without permission to inspect the process we must believe the ID.
  const isOpen = hasOpen(pid, `/dev/${name}`) ?? isInitialPidNamespace();
  // Before Linux 5.14 nothing shows what was attached by netlink, and by whom.
  return isOpen || hasOpen(pid, pathOf(name)) === true ? pid : undefined;
}

/** The state of every node; none without the driver, or without sysfs. */
export function nbdNodes(): NodeState[] {
  return existsSync("/sys/block") ? nodeNames().map(nbdNodeState) : [];
}

/**
 * The same with `leftBehind`. Asks the driver if no process is visible, which leaves a line in the kernel's log if the
 * node was attached by netlink. Opens the node.
 */
export function withLeftBehind(state: NodeState): NodeState {
  const isUnknown = state.attached && state.pid === undefined && backendText(state.name) === undefined;
  const isUnserved = isUnknown && seesAllProcesses();
  return { ...state, leftBehind: state.leftBehind || (isUnserved && isAttachedByIoctl(state.path)) };
}

/** Only such a node ends with its process. The ioctl does nothing, and fails for a node attached by netlink. */
function isAttachedByIoctl(path: string): boolean {
  const fd = open(path, O_RDONLY);
  if (fd < 0) return false;
  const result = ioctl(fd, NBD_PRINT_DEBUG);
  close(fd);
  return result === 0;
}
