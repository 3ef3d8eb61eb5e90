/** What holds a node for a server: the kernel's end of its sockets, and how that is let go of. */
import type { Untold } from "./untold.ts";

export interface NodeLink {
  /** `nbd0`. */
  readonly name: string;
  /** Whether the kernel serves the sockets already. */
  readonly byNetlink: boolean;
  /** Whether {@link guard} is to be called. */
  readonly wantsGuard: boolean;
  /** What the node's worker is to tell the kernel first: until then the disk is empty. Undefined: it knows. */
  readonly untold: Untold | undefined;
  /** Lets the kernel serve the sockets. `onEnd` is called when it does so no more, if it says that by itself. */
  begin(onEnd: () => void): Promise<void>;
  /**
   * Sees to it that what is in flight fails when this process is killed.
   * @param node the node, open. Whoever has opened it closes it, and that is not the thread that serves it: the last
   *   close of a node may have to wait for requests.
   */
  guard(node: number): void;
  /** The device is ready: from here on the end of the server is the end of the node. */
  settled(): void;
  /** It is not, until the next call of {@link settled}: the node waits for another server. Absent: it cannot. */
  keep?(): void;
  /** What another process needs to serve the node in our place: descriptors, by name. Absent: none can. */
  readonly fds?: Readonly<Record<string, number>>;
  /** Whether the node waits for another server when this process is killed. */
  readonly isRecoverable?: boolean;
  /** Whether another process serves the node, to which all is left; then {@link release} closes what is open here. */
  setForeign?(on: boolean): void;
  /** Fails what is in flight; after that the node may be somebody else's. The sockets are shut down before. Once. */
  letGo(): void;
  /** Ends what was begun. The node is free afterwards, unless somebody has it open. */
  release(): Promise<void>;
}

/** How a node is attached; `auto`: by netlink where that is to be had. */
export const ATTACH_WAYS = ["auto", "netlink", "ioctl"] as const;
export type AttachWay = (typeof ATTACH_WAYS)[number];

/** What the kernel is told of a device. */
export interface NodeShape {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  /** NBD_FLAG_*. */
  readonly flags: number;
  /** Seconds after which the driver gives up on a request; 0 for never. */
  readonly timeout: number;
  /** How many: the kernel makes a hardware queue of each. */
  readonly connections: number;
  /** The longest request, in bytes; undefined for what the driver takes. */
  readonly requestBytes: number | undefined;
  /** What the block layer does about a request that takes long: see queue-attributes.ts. */
  readonly requestTimer: "usual" | "looks" | "off";
}

/** A node with our ends of its sockets. */
export interface LinkedNode {
  readonly link: NodeLink;
  readonly sockets: readonly number[];
}
