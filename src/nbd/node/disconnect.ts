/** Detaches /dev/nbdN, whichever program serves it. */
import { messageOf, UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { close, open } from "../../libc/file.ts";
import { ioctl } from "../../libc/ioctl.ts";
import { claimUnused } from "../../nodes/claim.ts";
import { isAttached, type NodeState } from "../../nodes/node-state.ts";
import { useOf } from "../../nodes/node-use.ts";
import { isPrivileged } from "../../nodes/privileges.ts";
import { writeBack } from "../../nodes/write-back.ts";
import { O_RDONLY } from "../../uapi/fcntl.ts";
import { NBD_CLEAR_SOCK, NBD_DISCONNECT } from "../../uapi/nbd.ts";
import { NbdFamily } from "./netlink.ts";
import { attachedThread, nbdNodes, nodeIndex, withLeftBehind } from "./nodes.ts";
import { resetRequestTimer } from "./queue-attributes.ts";

/** How long kernel and server may take to release the node, in milliseconds: there may be much to flush. */
const RELEASE_DEADLINE_MS = 10_000;
const POLL_MS = 20;

/** Returns when the node is free. @throws UserError if it stays, or data was lost. */
export async function disconnectNbd(name: string, force: boolean): Promise<void> {
  const thread = attachedThread(name);
  const state = findAttached(name);
  if (state === undefined) {
    throw new UserError(`/dev/${name} is not attached: see what is with "tsbuse list"`);
  }
  if (!isPrivileged()) {
    throw new UserError(`disconnecting /dev/${name} needs root: run it with sudo (capability CAP_SYS_ADMIN)`);
  }

  const lost = await end(state, thread, force);
  await waitUntilFree(name, thread);
  if (lost !== undefined) throw new UserError(lost);
}

/** Returns a message about data that did not reach the device. @throws UserError */
async function end(
  state: NodeState,
  thread: number | undefined,
  force: boolean,
): Promise<string | undefined> {
  if (!force || !hasNoServer(state)) return openAndEnd(state, thread, force);
  // The search for its server took a while: somebody else may have detached it, and it may be in use again by now.
  if (attachedThread(state.name) !== thread) return undefined;
  // The kernel may be looking for partitions: nobody else can open the node before that has failed.
  return endOrphan(state);
}

/** As {@link end} does. */
async function openAndEnd(
  state: NodeState,
  thread: number | undefined,
  force: boolean,
): Promise<string | undefined> {
  const { name } = state;
  // Held until it is disconnected, so that nobody starts to use it meanwhile.
  const fd = force ? open(state.path, O_RDONLY) : await claimUnused(name, state.pid);
  if (fd < 0) throw new UserError(`${state.path} cannot be opened: ${errorText(-fd)}`);
  try {
    // Somebody else has detached it meanwhile, and it may be in use again by now.
    if (attachedThread(name) !== thread) return undefined;
    // A node that waited may have a server by now, with data to write back.
    return await endConnection(fd, findAttached(name) ?? state, force);
  } finally {
    close(fd);
  }
}

function hasNoServer(state: NodeState): boolean {
  return state.waiting || state.leftBehind;
}

function findAttached(name: string): NodeState | undefined {
  return nbdNodes().find((state) => state.name === name && isAttached(state));
}

async function endConnection(fd: number, state: NodeState, force: boolean): Promise<string | undefined> {
  // Nobody answers in place of a dead server: what it did not take was lost before.
  if (hasNoServer(state)) return endOrphan(state);
  const { leftBehind } = force ? state : withLeftBehind(state);
  // A server that hangs would hang this process with it.
  const written = force ? 0 : await writeBack(state.name);
  const result = ioctl(fd, NBD_DISCONNECT);
  // A node attached by netlink stays attached until somebody clears it.
  if (force || state.pid === undefined) ioctl(fd, NBD_CLEAR_SOCK);
  else if (result < 0) throw new UserError(`${state.path} cannot be disconnected: ${errorText(-result)}`);
  // What a dead server did not take was lost before.
  if (written >= 0 || leftBehind) return undefined;
  const reason = errorText(-written);
  return `${state.path} was disconnected, but not all data could be written to it (${reason}): check it`;
}

/** Ends a node that netlink attached, whose users may be waiting for its server. */
function endOrphan(state: NodeState): undefined {
  try {
    using family = new NbdFamily();
    family.disconnect(nodeIndex(state.name));
    resetRequestTimer(state.name);
  } catch (error) {
    throw new UserError(`${state.path} cannot be disconnected: ${messageOf(error)}`);
  }
}

/** @param thread that attached the node: with another one, somebody has attached it anew. */
async function waitUntilFree(name: string, thread: number | undefined): Promise<void> {
  const deadline = performance.now() + RELEASE_DEADLINE_MS;
  for (;;) {
    const state = findAttached(name);
    const now = attachedThread(name);
    if (state === undefined || (now !== undefined && now !== thread)) return;
    // With its server gone, a mounted node waits for the umount, and so would we.
    const stays = state.pid === undefined && useOf(state) !== undefined;
    if (stays || performance.now() > deadline) throw new UserError(whyNotFree(state));
    await Bun.sleep(POLL_MS);
  }
}

function whyNotFree(state: NodeState): string {
  const use = useOf(state);
  const done = `${state.path} is disconnected, but`;
  if (use !== undefined) return `${done} not free while it is ${use.how}: ${use.remedy}`;
  if (state.pid === undefined) return `${done} something has it open: end that, see "fuser ${state.path}"`;
  return `${done} its server does not let go of it: end that with "kill -9 ${state.pid}"`;
}
