/** What to tell the kernel about a node that it serves. Until then the disk is empty: see queue-attributes.ts. */
import { messageOf } from "../../errors.ts";
import { readNumber } from "../../libc/sysfs.ts";
import { backendText } from "./backend.ts";
import type { NodeShape } from "./link.ts";
import { NbdFamily } from "./netlink.ts";
import { attachedThread, nodeIndex } from "./nodes.ts";
import { setQueueAttributes } from "./queue-attributes.ts";

/** What to tell about a node, and how to recognize it. */
export interface Untold {
  readonly shape: NodeShape;
  /** See {@link attachedThread} and {@link backendText}. */
  readonly thread: number | undefined;
  readonly backend: string | undefined;
}

/** Never call it on a thread that serves the node. `failure`: why it failed; `warning`: a lesser problem. */
export function tellKernel(
  name: string,
  { shape, thread, backend }: Untold,
): { readonly failure?: string; readonly warning?: string } {
  // Somebody else has disconnected it, and may have attached another device.
  if (attachedThread(name) !== thread || backendText(name) !== backend)
    return { failure: "somebody else has disconnected it" };
  const warning = setQueueAttributes(name, shape);
  try {
    using family = new NbdFamily();
    // By this identifier the driver refuses to resize another device's node.
    family.resize(nodeIndex(name), backend ?? "", shape.size);
  } catch (error) {
    return { failure: `its size cannot be set: ${messageOf(error)}` };
  }
  if (readNumber(`/sys/block/${name}/size`) === 0)
    return { failure: "the driver of this kernel takes no size by netlink: give --attach ioctl" };
  return warning === undefined ? {} : { warning };
}
