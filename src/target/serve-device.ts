/** Puts a device on a target and serves it there: the way from a BlockDevice to a transport. */
import type { BlockDevice } from "../device.ts";
import { Dispatch } from "../dispatch.ts";
import { UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { setIoFlusher } from "../libc/process.ts";
import type { DriverOptions } from "../nbd/node/driver.ts";
import { NodeAttachment, type NodeOptions } from "../nbd/node/attachment.ts";
import type { ServerOptions } from "../nbd/server/limits.ts";
import { NbdServer } from "../nbd/server/server.ts";
import { isServerTarget, parseServerTarget } from "../nbd/server/target.ts";
import { chooseNode } from "./node-target.ts";
import { within } from "../serving/deadline.ts";
import type { Transport } from "../transport.ts";
import { UblkAttachment } from "../ublk/attachment.ts";
import type { UblkOptions } from "../ublk/options.ts";

/** How long a device may take to be made ready, in milliseconds. */
const PREPARE_LIMIT_MS = 60_000;

/** Options of all transports; each leaves alone what it has no use for. */
export interface ServeDeviceOptions extends DriverOptions, NodeOptions, ServerOptions, UblkOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes; at least the device's own block size. */
  readonly blockSize?: number | undefined;
  /** Called once, when the device can be used at `transport.path`. */
  readonly onReady: (transport: Transport) => void;
}

/**
 * Serves the device until it is detached. The event loop is left free, unless the caller says that the thread has
 * nothing else to do (`ownsThread`). The device is closed in any case, also when it could not be attached.
 *
 * @param target a node, see node-target.ts, or where a server listens, see nbd/server/target.ts.
 * @throws UserError when it cannot be attached, or was cut off.
 */
export async function serveDevice(
  device: BlockDevice,
  target: string,
  options: ServeDeviceOptions,
): Promise<void> {
  try {
    await prepare(device);
    const transport = await open(new Dispatch(device, options), target, options);
    await transport.serve(() => options.onReady(transport));
  } finally {
    await device.close?.();
  }
}

/** @throws UserError when it takes too long, and what the device throws. */
async function prepare(device: BlockDevice): Promise<void> {
  if (device.prepare === undefined) return;
  let isOver = false;
  const preparing = Promise.try(() => device.prepare?.()).finally(() => (isOver = true));
  await within(preparing, PREPARE_LIMIT_MS);
  if (!isOver)
    throw new UserError(`the device is not ready after ${PREPARE_LIMIT_MS / 1000} s: see what it waits for`);
}

async function open(dispatch: Dispatch, target: string, options: ServeDeviceOptions): Promise<Transport> {
  const needsUblk = ublkOption(options);
  if (isServerTarget(target)) {
    if (needsUblk !== undefined)
      throw new UserError(`${needsUblk} needs a ublk device: give /dev/ublkb0, or "ublk"`);
    return new NbdServer(parseServerTarget(target), dispatch, options);
  }
  const node = await chooseNode(target, needsUblk, options);
  const flusher = setIoFlusher(true);
  if (flusher < 0) {
    options.log?.(
      `memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): ${errorText(-flusher)}`,
    );
  }
  if (node.driver === "nbd") return new NodeAttachment(node.name, dispatch, options);
  if ((options.timeoutSeconds ?? 0) > 0)
    options.log?.("a ublk device knows no time-out of the kernel's: the time-out of requests does the same");
  return new UblkAttachment(node.id, dispatch, options);
}

/** An option that only ublk has. */
function ublkOption({ queues, recover, resume }: ServeDeviceOptions): string | undefined {
  if (recover === true) return "recovery";
  if (resume === true) return "resuming";
  return (queues ?? 1) > 1 ? "more than one queue" : undefined;
}
