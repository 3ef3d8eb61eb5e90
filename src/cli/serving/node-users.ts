/** Who still uses the node that this process serves, when it is told to end. */
import { isInUse, PASSING_USE_MS } from "../../nodes/claim.ts";
import { partitionNames } from "../../nodes/node-state.ts";
import { findHolder, findUse, type NodeUse } from "../../nodes/node-use.ts";
import { openersOf } from "../../nodes/openers.ts";

const POLL_MS = 50;

/** How the node or its partitions are used, as the rest of a sentence. Undefined if unused, or not a node. */
export function useOf(path: string): string | undefined {
  const name = nodeName(path);
  return name === undefined ? undefined : findUse(name)?.how;
}

/** What holds the node in a way that can be swap: a mount is not. */
export function heldBy(path: string): NodeUse | undefined {
  const name = nodeName(path);
  return name === undefined ? undefined : findHolder(name);
}

/** Like {@link useOf}, but with anything else that has claimed the node: asks the kernel, which takes a moment. */
export async function claimedBy(path: string): Promise<string | undefined> {
  return useOf(path) ?? ((await isInUse(path)) ? "in use" : undefined);
}

/** Like {@link claimedBy}, but with programs that have it open, except for a moment, as udev does. */
export async function openedBy(path: string): Promise<string | undefined> {
  const deadline = performance.now() + PASSING_USE_MS;
  for (;;) {
    const use = useOf(path);
    if (use !== undefined) return use;
    const openers = allOpeners(path);
    if (openers.length === 0) return claimedBy(path);
    if (performance.now() > deadline) return `open in ${openers.join(", ")}`;
    await Bun.sleep(POLL_MS);
  }
}

function allOpeners(path: string): string[] {
  const name = nodeName(path);
  if (name === undefined) return [];
  return [name, ...partitionNames(name)].flatMap((each) => openersOf(`/dev/${each}`));
}

function nodeName(path: string): string | undefined {
  return /^\/dev\/([a-z]+\d+)$/.exec(path)?.[1];
}
