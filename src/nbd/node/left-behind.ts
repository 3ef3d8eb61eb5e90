/** What a killed server leaves: a node that netlink attached, and that nobody serves any more. */
import type { NbdFamily } from "./netlink.ts";
import { backendOf, backendText } from "./backend.ts";
import { attachedThread, nbdNodeState, nodeIndex } from "./nodes.ts";

/**
 * Clears such a node, if it is ours and waits for no server: requests in flight fail, and the node is free once nobody
 * has it open. Does nothing to any other node.
 * @throws ErrnoError
 */
export function clearLeftBehind(name: string, family: NbdFamily): void {
  if (backendOf(name)?.kind !== "process") return;
  const [thread, backend] = [attachedThread(name), backendText(name)];
  if (!nbdNodeState(name).leftBehind) return;
  // The search for its server took a while: another start may have cleared it and attached it anew.
  if (attachedThread(name) === thread && backendText(name) === backend) family.disconnect(nodeIndex(name));
}
