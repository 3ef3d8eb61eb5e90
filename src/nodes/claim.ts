/**
 * Whether a node is in use, as the kernel sees it: by open(2) with O_EXCL. Whatever mounts it in any namespace, swaps
 * to it, keeps a journal on it, or builds a device on it or its partitions has claimed it in this way. None of these
 * can begin while it is claimed here. Not for a thread that serves the node: the open may have to wait for requests.
 */
import { UserError } from "../errors.ts";
import { open } from "../libc/file.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { within } from "../serving/deadline.ts";
import { RequestWorker } from "../serving/workers.ts";
import { errno } from "../uapi/errno.ts";
import { O_EXCL, O_RDONLY } from "../uapi/fcntl.ts";
import type { ClaimReply, ClaimRequest } from "./claim.worker.ts";
import { findDistantMount } from "./namespaces.ts";
import { findUse, type NodeUse } from "./node-use.ts";
import { partitionNames } from "./node-state.ts";
import { openersOf } from "./openers.ts";

/** How long to wait for a program that looks at the node, in milliseconds: udev and mkfs take less. */
export const PASSING_USE_MS = 2000;
export const PASSING_USE_POLL_MS = 10;
/** How long the kernel gets to say whether a node is in use, in milliseconds: it takes a few, unless the node hangs. */
const ANSWER_LIMIT_MS = 5000;

/** Returns a file descriptor, for the caller to close, or -errno: -EBUSY when the node is in use. */
export function claim(path: string): number {
  return open(inCurrentRoot(path), O_RDONLY | O_EXCL);
}

/** Whether a node is in use, for the thread that serves it. Without an answer in time it counts as in use. */
export async function isInUse(path: string): Promise<boolean> {
  const worker = new RequestWorker<ClaimRequest, ClaimReply>("claim");
  const ask = async (): Promise<void> => {
    await worker.next();
    worker.send({ path });
    ({ inUse } = await worker.next());
  };
  let inUse = true;
  // If there is no worker, there is no answer, either.
  await within(
    ask().catch(() => undefined),
    ANSWER_LIMIT_MS,
  );
  void worker.end();
  return inUse;
}

/**
 * Claims a node that is to be detached. Returns what {@link claim} does, except -EBUSY.
 * @param server the process that serves it, which is not a user.
 * @throws UserError if it is in use, naming by whom.
 */
export async function claimUnused(name: string, server: number | undefined): Promise<number> {
  const path = `/dev/${name}`;
  const deadline = performance.now() + PASSING_USE_MS;
  for (;;) {
    const use = findUse(name);
    if (use !== undefined) throw refusal(path, use);
    const fd = claim(path);
    if (fd !== -errno.EBUSY) return fd;
    if (performance.now() > deadline) throw refusal(path, findHiddenUse(name, server));
    await Bun.sleep(PASSING_USE_POLL_MS);
  }
}

function refusal(path: string, { how, remedy }: NodeUse): UserError {
  return new UserError(`${path} is ${how}: ${remedy}, or cut it off with --force`);
}

/** What may have claimed a node, if neither the mounts nor the holders of this namespace explain it. */
function findHiddenUse(name: string, server: number | undefined): NodeUse {
  const mount = findDistantMount(name);
  if (mount !== undefined) {
    const { point, pid, command } = mount;
    return {
      how: `mounted at ${point} in the mount namespace of ${command} (process ${pid})`,
      remedy: `run "nsenter -t ${pid} -m umount ${point}" first`,
    };
  }
  const openers = [name, ...partitionNames(name)].flatMap((each) => openersOf(`/dev/${each}`, [server]));
  if (openers.length > 0)
    return { how: `in use, and open in ${openers.join(", ")}`, remedy: "end that first" };
  return {
    how: "in use, perhaps as the journal or a part of another file system",
    remedy: "unmount that first",
  };
}
