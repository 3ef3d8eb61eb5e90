/**
 * A node attached by netlink. No thread of this process is in the kernel for it: stopping, freezing or tracing this
 * process does not affect the node, and it stays when this process is gone. Then somebody must clear it, unless it
 * should wait for another server.
 */
import { existsSync } from "node:fs";
import { ErrnoError, messageOf, UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { ensureNode } from "../../nodes/device-node.ts";
import { errno } from "../../uapi/errno.ts";
import { backendText, ownBackend, recoverableBackend } from "./backend.ts";
import { NodeTaken } from "./driver.ts";
import { Guardian } from "./guardian.ts";
import type { NodeLink, NodeShape } from "./link.ts";
import type { NbdFamily } from "./netlink.ts";
import { attachedThread, nodeIndex } from "./nodes.ts";
import { resetRequestTimer } from "./queue-attributes.ts";
import { leaveSeat, pathOf, takeSeat } from "./seat.ts";
import type { Untold } from "./untold.ts";

/** How long new requests wait for another server, in seconds: practically for ever. */
const WAIT_SECONDS = 10 * 365 * 24 * 60 * 60;
/** Netlink exists, but this process may not use it. */
export class NetlinkRefused extends UserError {}

export interface LinkOptions {
  /** For a node that waits for another server when this one is gone: see identity.ts. */
  readonly identity?: string | undefined;
  /** The buffer of either end of a socket. */
  readonly bufferBytes?: number | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

export class NetlinkLink implements NodeLink {
  readonly byNetlink = true;
  readonly wantsGuard: boolean;
  readonly untold: Untold | undefined;
  readonly #thread: number | undefined;
  readonly #backend: string | undefined;
  #guardian: Guardian | undefined;
  #isLetGo = false;
  /** The node must wait for the next server: it existed before this one, which is not ready yet or is ending. */
  #waits: boolean;
  #isForeign = false;

  /**
   * For a node that has our sockets.
   * @param family closed at the end, as is the seat.
   */
  constructor(
    readonly name: string,
    readonly family: NbdFamily,
    readonly seat: number,
    readonly options: LinkOptions,
    { untold, waits }: { readonly untold: NodeShape | undefined; readonly waits: boolean },
    guardian?: Guardian,
  ) {
    this.#guardian = guardian;
    // A node that waits for another server must not be cleared.
    this.wantsGuard = options.identity === undefined && guardian === undefined;
    this.#thread = attachedThread(name);
    this.#backend = backendText(name);
    this.untold = untold && { shape: untold, thread: this.#thread, backend: this.#backend };
    this.#waits = waits;
  }

  begin(): Promise<void> {
    // The kernel already serves the sockets, and shuts them down when it stops.
    return Promise.resolve();
  }

  guard(node: number): void {
    try {
      this.#guardian = Guardian.start(node);
    } catch (error) {
      this.options.log?.(
        `/dev/${this.name}: should this process be killed, what it has not answered hangs until "tsbuse disconnect": ${messageOf(error)}`,
      );
    }
  }

  settled(): void {
    this.#waits = false;
  }

  keep(): void {
    this.#waits = true;
  }

  get isRecoverable(): boolean {
    return this.options.identity !== undefined;
  }

  get fds(): Readonly<Record<string, number>> {
    const guardian = this.#guardian && { guardian: this.#guardian.stream };
    return { ...(this.seat >= 0 && { seat: this.seat }), ...guardian };
  }

  setForeign(on: boolean): void {
    this.#isForeign = on;
  }

  letGo(): void {
    if (this.#isLetGo || this.#waits || this.#isForeign) return;
    this.#isLetGo = true;
    // Somebody else has disconnected it, and may have attached another device.
    if (attachedThread(this.name) !== this.#thread || backendText(this.name) !== this.#backend) return;
    try {
      this.family.disconnect(nodeIndex(this.name));
      resetRequestTimer(this.name);
    } catch (error) {
      this.options.log?.(`/dev/${this.name} could not be disconnected: ${messageOf(error)}`);
    }
  }

  async release(): Promise<void> {
    this.letGo();
    if (this.#isForeign) this.#guardian?.leave();
    else await this.#guardian?.dismiss();
    leaveSeat(this.name, this.seat, !this.#waits && !this.#isForeign);
    this.family.close();
  }
}

/**
 * Attaches a free node, or one that does not exist yet, which the driver then makes.
 * @param family belongs to the link afterwards, unless this fails.
 * @param sockets the kernel's ends.
 * @throws NodeTaken if it is in use, NetlinkRefused.
 */
export function connectNode(
  name: string,
  family: NbdFamily,
  sockets: readonly number[],
  shape: NodeShape,
  options: LinkOptions,
): NetlinkLink {
  const { identity } = options;
  const seat = seatOf(name, identity !== undefined);
  try {
    const backend = identity === undefined ? ownBackend() : recoverableBackend(identity);
    const deadTimeout = identity === undefined ? 0 : WAIT_SECONDS;
    const told = { ...shape, size: 0, index: nodeIndex(name), deadTimeout, backend };
    connect(name, () => family.connect(told, sockets));
    const link = new NetlinkLink(name, family, seat, options, { untold: shape, waits: false });
    try {
      ensureNode(`/dev/${name}`, "block", `/sys/block/${name}/dev`);
      if (identity !== undefined) refuseOldDriver(name);
    } catch (error) {
      link.letGo();
      throw error;
    }
    return link;
  } catch (error) {
    leaveSeat(name, seat, false);
    throw error;
  }
}

/** @throws NodeTaken if it is in use, UserError if it is unavailable and needed. */
export function seatOf(name: string, isNeeded: boolean): number {
  const seat = takeSeat(name);
  if (seat === -errno.EAGAIN) throw taken(name);
  if (seat < 0 && isNeeded)
    throw new UserError(
      `${pathOf(name)} cannot be opened, by which the server of the node is known (${errorText(-seat)}): mend that, or leave out --recover`,
    );
  return seat;
}

function connect(name: string, command: () => void): void {
  try {
    command();
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error;
    if (error.errno === errno.EBUSY) throw taken(name);
    if (error.errno === errno.EPERM)
      throw new NetlinkRefused("the driver obeys root of the host alone: run it outside of the container");
    if (!existsSync(`/sys/block/${name}`))
      throw new UserError(
        `/dev/${name} does not exist and cannot be made (${errorText(error.errno)}): give a smaller number, or "nbd"`,
      );
    throw new NetlinkRefused(error.message);
  }
}

export function taken(name: string): NodeTaken {
  return new NodeTaken(`/dev/${name} has just been taken by another process: choose another node, or "auto"`);
}

/** @throws UserError if the driver does not support it. */
function refuseOldDriver(name: string): void {
  if (backendText(name) === undefined)
    throw new UserError(
      "the nbd driver of this kernel cannot recover: leave out --recover, or use Linux 5.14 or newer",
    );
}
