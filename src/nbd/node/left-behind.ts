/** What a server that was killed leaves: a node that netlink attached, and nobody serves any more. */
import type { NbdFamily } from "./netlink.ts";
import { backendOf } from "./backend.ts";
import { nbdNodeState, nodeIndex } from "./nodes.ts";

/**
 * Takes such a node away, if it is ours and waits for nobody: what is in flight fails, and the node is free once nobody
 * has it open. Does nothing to any other.
 * @throws ErrnoError
 */
export function clearLeftBehind(name: string, family: NbdFamily): void {
  if (backendOf(name)?.kind !== "process") return;
  if (nbdNodeState(name).leftBehind) family.disconnect(nodeIndex(name));
}
