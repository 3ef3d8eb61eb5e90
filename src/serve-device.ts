/** Puts a device on a target and serves it there: the way from a BlockDevice to a transport. */
import type { BlockDevice } from "./device.ts";
import { Dispatch } from "./dispatch.ts";
import { errorText } from "./libc/errno.ts";
import { setIoFlusher } from "./libc/process.ts";
import { claimNode } from "./nbd/driver.ts";
import { KernelAttachment, type KernelOptions } from "./nbd/kernel.ts";
import { NbdServer, type ServerOptions } from "./nbd/server.ts";
import { isServerTarget, parseServerTarget } from "./nbd/target.ts";
import type { Transport } from "./transport.ts";
import { UblkAttachment } from "./ublk/attachment.ts";
import { loadUblk } from "./ublk/driver.ts";
import { isUblkTarget, ublkTarget } from "./ublk/nodes.ts";
import type { UblkOptions } from "./ublk/options.ts";

/** Options of all transports; each leaves alone what it has no use for. */
export interface ServeDeviceOptions extends KernelOptions, ServerOptions, UblkOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes; at least the device's own block size. */
  readonly blockSize?: number | undefined;
  /** Called once, when the device can be used at `transport.path`. */
  readonly onReady: (transport: Transport) => void;
}

/**
 * Serves the device until it is detached. On a node the tight pump does nothing else on the calling thread but for
 * short turns of the event loop; the event pump, and a server, leave the event loop alone. The device is closed in
 * any case, also when it could not be attached.
 *
 * @param target `/dev/nbd0`, `auto` for the first free node, or where a server listens: see nbd/target.ts.
 * @throws UserError when it cannot be attached, or was cut off.
 */
export async function serveDevice(
  device: BlockDevice,
  target: string,
  options: ServeDeviceOptions,
): Promise<void> {
  try {
    const transport = open(new Dispatch(device, options), target, options);
    await transport.serve(() => options.onReady(transport));
  } finally {
    await device.close?.();
  }
}

function open(dispatch: Dispatch, target: string, options: ServeDeviceOptions): Transport {
  if (isServerTarget(target)) return new NbdServer(parseServerTarget(target), dispatch, options);
  const name = isUblkTarget(target) ? undefined : claimNode(target);
  const flusher = setIoFlusher(true);
  if (flusher < 0) {
    options.log?.(
      `memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): ${errorText(-flusher)}`,
    );
  }
  if (name !== undefined) return new KernelAttachment(name, dispatch, options);
  const id = ublkTarget(target);
  loadUblk();
  return new UblkAttachment(id, dispatch, options);
}
