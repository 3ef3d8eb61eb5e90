/** Who uses a node, for the commands that would take it away. */
import type { NodeState } from "../nodes/node-state.ts";
import { shellWord } from "./text.ts";

/** As the rest of a sentence: who uses the node and what to do about it. */
export function whoUses({ mounts, holders, path }: NodeState): string | undefined {
  const [mount] = mounts;
  if (mount !== undefined) return `mounted at ${mount}: run "umount ${shellWord(mount)}" first`;
  const [holder] = holders;
  if (holder === "swap") return `used as swap: run "swapoff" on ${path} or its partition first`;
  if (holder !== undefined) return `held by ${holder}: release it there first`;
  return undefined;
}
