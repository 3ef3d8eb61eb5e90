/** Puts a device on a target and serves it there: the way from a BlockDevice to a transport. */
import type { BlockDevice } from "./device.ts";
import { Dispatch } from "./dispatch.ts";
import { errorText } from "./libc/errno.ts";
import { setIoFlusher } from "./libc/process.ts";
import { claimNode } from "./nbd/driver.ts";
import { KernelAttachment, type KernelOptions } from "./nbd/kernel.ts";
import type { ServerOptions } from "./nbd/served-export.ts";
import { NbdServer } from "./nbd/server.ts";
import { isServerTarget, parseServerTarget } from "./nbd/target.ts";
import { TightServer } from "./nbd/tight-server.ts";
import type { Transport } from "./transport.ts";

/** Options of both transports; each leaves alone what it has no use for. */
export interface ServeDeviceOptions extends KernelOptions, ServerOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes; at least the device's own block size. */
  readonly blockSize?: number | undefined;
  /** Called once, when the device can be used at `transport.path`. */
  readonly onReady: (transport: Transport) => void;
}

/**
 * Serves the device until it is detached. The tight pump, of a node or of a server, does nothing else on the calling
 * thread but for short turns of the event loop; the event pump leaves the event loop alone. The device is closed in
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
  if (isServerTarget(target)) {
    const Server = options.pump === "event" ? NbdServer : TightServer;
    return new Server(parseServerTarget(target), dispatch, options);
  }
  const name = claimNode(target);
  const flusher = setIoFlusher(true);
  if (flusher < 0) {
    options.log?.(
      `memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): ${errorText(-flusher)}`,
    );
  }
  return new KernelAttachment(name, dispatch, options);
}
