/** What holds a node for a server: the kernel's end of its sockets, and how to release it. */
import type { Untold } from "./untold.ts";

export interface NodeLink {
  /** `nbd0`. */
  readonly name: string;
  /** Whether the kernel already serves the sockets. */
  readonly byNetlink: boolean;
  /** Whether to call {@link guard}. */
  readonly wantsGuard: boolean;
  /** What the node's worker must tell the kernel first: until then the disk is empty. Undefined: nothing. */
  readonly untold: Untold | undefined;
  /** Lets the kernel serve the sockets. Calls `onEnd` when it has stopped, if the kernel reports that itself. */
  begin(onEnd: () => void): Promise<void>;
  /**
   * Makes sure that requests in flight fail when this process is killed.
   * @param node the node, open. Whoever opened it closes it, which must not be the thread that serves it: the last
   *   close of a node may have to wait for requests.
   */
  guard(node: number): void;
  /** The device is ready: from now on the node ends with the server. */
  settled(): void;
  /** Until the next call of {@link settled}, the node outlives the server and waits for another. Absent: it cannot. */
  keep?(): void;
  /** What another process needs to serve the node in our place: descriptors, by name. Absent: none can. */
  readonly fds?: Readonly<Record<string, number>>;
  /** Whether the node waits for another server when this process is killed. */
  readonly isRecoverable?: boolean;
  /** Whether another process serves the node: then {@link release} only closes what is open here. */
  setForeign?(on: boolean): void;
  /** Fails requests in flight; then the node may be in use by others. Shut down the sockets before. Call it once. */
  letGo(): void;
  /** Undoes everything. The node is then free, unless somebody has it open. */
  release(): Promise<void>;
}

/** How a node is attached; `auto`: by netlink where available. */
export const ATTACH_WAYS = ["auto", "netlink", "ioctl"] as const;
export type AttachWay = (typeof ATTACH_WAYS)[number];

/** What the kernel is told about a device. */
export interface NodeShape {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  /** NBD_FLAG_*. */
  readonly flags: number;
  /** Seconds after which the driver gives up on a request; 0 for never. */
  readonly timeout: number;
  /** Their number: the kernel makes a hardware queue for each. */
  readonly connections: number;
  /** The longest request, in bytes; undefined for the driver's own limit. */
  readonly requestBytes: number | undefined;
  /** What the block layer does about a request that takes long: see queue-attributes.ts. */
  readonly requestTimer: "usual" | "looks" | "off";
}

/** A node with our ends of its sockets. */
export interface LinkedNode {
  readonly link: NodeLink;
  readonly sockets: readonly number[];
}
