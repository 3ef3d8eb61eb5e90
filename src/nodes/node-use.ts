/** Who uses a node: asked by everything that would attach to it or detach it. */
import { holdersOf, isAttached, mountsOf, type NodeState } from "./node-state.ts";
import { openersOf } from "./openers.ts";

export interface NodeUse {
  /** As the rest of a sentence: `mounted at /mnt`. */
  readonly how: string;
  /** What ends it, as a sentence of its own. */
  readonly remedy: string;
}

/** How the disk or a partition is used; undefined if it is not in use. Its server does not count. */
export function useOf({
  path,
  mounts,
  holders,
}: Pick<NodeState, "path" | "mounts" | "holders">): NodeUse | undefined {
  const [mount] = mounts;
  if (mount !== undefined) return use(`mounted at ${mount}`, "unmount it first");
  const [holder] = holders;
  if (holder === "swap") return use("used as swap", `run "swapoff" on ${path} or its partition first`);
  return holder === undefined ? undefined : use(`held by ${holder}`, "release it there first");
}

/** As {@link useOf}, looked up. @param name `nbd0`. */
export function findUse(name: string): NodeUse | undefined {
  return useOf({ path: `/dev/${name}`, mounts: mountsOf(name), holders: holdersOf(name) });
}

/** As {@link findUse}, but regardless of mounts: swap, or what swap may lie on, such as a device of device mapper. */
export function findHolder(name: string): NodeUse | undefined {
  return useOf({ path: `/dev/${name}`, mounts: [], holders: holdersOf(name) });
}

/** Why nobody may attach to the node, with the remedy; undefined when it is free. */
export function whyBusy(state: NodeState): string | undefined {
  const { path } = state;
  if (state.waiting)
    return `${path} waits for its server: resume it with "tsbuse recover", or run "tsbuse disconnect ${path}"`;
  const found = serverOf(state) ?? useOf(state);
  if (found !== undefined) return `${path} is ${found.how}: ${found.remedy}`;
  if (!isAttached(state)) return undefined;
  if (state.attached && !state.leftBehind)
    return `${path} is attached, and what serves it cannot be seen from here: choose another node, or "auto"`;
  const openers = openersOf(path);
  // The NBD driver frees a node at the last close, and not before.
  return openers.length > 0
    ? `${path} has lost its server, but is still open in ${openers.join(", ")}: end that first`
    : `${path} is still attached, though its server is gone: run "tsbuse disconnect ${path}"`;
}

/** Whether a node is left behind and not in use: it is free as soon as the programs that look at it have closed it. */
export function isPassing(state: NodeState): boolean {
  return (state.leftBehind || !state.attached) && !state.waiting && useOf(state) === undefined;
}

function serverOf({ pid, command }: NodeState): NodeUse | undefined {
  if (pid === undefined) return undefined;
  const who = command === undefined ? "another process" : `"${command}"`;
  return use(`served by process ${pid}, ${who}`, 'choose another node, or "auto"');
}

function use(how: string, remedy: string): NodeUse {
  return { how, remedy };
}
