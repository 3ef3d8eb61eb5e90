/** What the kernel is told of a node that it serves already. Until then the disk is empty: see queue-attributes.ts. */
import { messageOf } from "../../errors.ts";
import { readNumber } from "../../libc/sysfs.ts";
import { backendText } from "./backend.ts";
import type { NodeShape } from "./link.ts";
import { NbdFamily } from "./netlink.ts";
import { attachedThread, nodeIndex } from "./nodes.ts";
import { setQueueAttributes } from "./queue-attributes.ts";

/** What is to be said of a node, and by what that is known again. */
export interface Untold {
  readonly shape: NodeShape;
  /** See {@link attachedThread} and {@link backendText}. */
  readonly thread: number | undefined;
  readonly backend: string | undefined;
}

/** Never from a thread that serves the node. `failure` says what went wrong, `warning` what is not as it should be. */
export function tellKernel(
  name: string,
  { shape, thread, backend }: Untold,
): { readonly failure?: string; readonly warning?: string } {
  // Somebody else has disconnected it, and may have put a device of their own there.
  if (attachedThread(name) !== thread || backendText(name) !== backend)
    return { failure: "somebody else has disconnected it" };
  const warning = setQueueAttributes(name, shape);
  try {
    using family = new NbdFamily();
    // Of another device's node the driver takes no size by this identifier.
    family.resize(nodeIndex(name), backend ?? "", shape.size);
  } catch (error) {
    return { failure: `its size cannot be set: ${messageOf(error)}` };
  }
  if (readNumber(`/sys/block/${name}/size`) === 0)
    return { failure: "the driver of this kernel takes no size by netlink: give --attach ioctl" };
  return warning === undefined ? {} : { warning };
}
