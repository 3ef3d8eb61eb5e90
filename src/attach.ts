/** Puts a device on a target and serves it there: the way from a BlockDevice to a transport. */
import type { BlockDevice } from "./device.ts";
import { Dispatch } from "./dispatch.ts";
import { errorText } from "./libc/errno.ts";
import { setIoFlusher } from "./libc/process.ts";
import type { Trace } from "./nbd/connection.ts";
import { claimNode } from "./nbd/driver.ts";
import { KernelAttachment } from "./nbd/kernel.ts";

export interface AttachOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes; at least the device's own block size. */
  readonly blockSize?: number | undefined;
  /** Seconds after which the kernel gives up on a request. Default 0: never. */
  readonly timeoutSeconds?: number | undefined;
  /** Sees each request when it has been answered. */
  readonly trace?: Trace | undefined;
  /** Gets a line about what does not stop the device. */
  readonly log?: ((line: string) => void) | undefined;
  /** Called once, when the device can be used at `attachment.path`. */
  readonly onReady: (attachment: Attachment) => void;
}

/** A device in use. */
export interface Attachment {
  readonly path: string;
  /** Requests answered so far. */
  readonly requests: number;
  /** True: the event loop is looked after every few milliseconds even when there is no request. */
  watchful: boolean;
  /** Writes everything back and disconnects; {@link serveDevice} returns when that is done. */
  detach(): void;
  /** Disconnects at once; data that was not written back is lost. */
  cut(): void;
}

/**
 * Attaches the device and serves it on the calling thread, which does nothing else but for short turns of the event
 * loop, until it is detached. The device is closed in any case, also when it could not be attached.
 *
 * @param target `/dev/nbd0`, or `auto` for the first free node.
 * @throws UserError when it cannot be attached, or was cut off.
 */
export async function serveDevice(
  device: BlockDevice,
  target: string,
  options: AttachOptions,
): Promise<void> {
  try {
    const dispatch = new Dispatch(device, options);
    const name = claimNode(target);
    const flusher = setIoFlusher(true);
    if (flusher < 0) {
      options.log?.(
        `memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): ${errorText(-flusher)}`,
      );
    }
    const attachment = new KernelAttachment(name, dispatch, options);
    await attachment.serve(() => options.onReady(attachment));
  } finally {
    await device.close?.();
  }
}
