/**
 * Serving a device while the program runs on: `attach` for a node of this system, `serve` for NBD clients. Timers,
 * sockets and everything else in the program keep running.
 */
import type { BlockDevice } from "./device.ts";
import { UserError } from "./errors.ts";
import { isServerTarget } from "./nbd/server/target.ts";
import { Stop } from "./serving/stop.ts";
import { shieldedLog } from "./target/callbacks.ts";
import { serveDevice } from "./target/serve-device.ts";
import type { Statistics, Transport } from "./transport.ts";

/** What {@link attach} and {@link serve} have in common. */
export interface CommonOptions {
  /** Refuse every write. Default: only if the device has no `write`. */
  readonly readOnly?: boolean | undefined;
  /** The smallest unit of I/O, in bytes: 512, 1024, 2048 or 4096, and at least the device's own. */
  readonly blockSize?: number | undefined;
  /** How many requests the device gets at once. Default 128. */
  readonly queueDepth?: number | undefined;
  /**
   * Milliseconds that the device may take over a request. After that, the answer is EIO, with a line in the log. The
   * buffer stays lent to the device until its promise settles. Default: no limit.
   */
  readonly requestTimeoutMs?: number | undefined;
  /**
   * Milliseconds to look for the next request before going to sleep; 0 sleeps at once. Default: up to 0.05, as far as
   * that pays.
   */
  readonly busyPollMs?: number | undefined;
  /**
   * Milliseconds that ending may take, whoever asked for it: writing data back, the flush, and `close` of the device.
   * Then the device is cut off, and what was not written is lost. Default: as long as it takes.
   */
  readonly stopTimeoutMs?: number | undefined;
  /** Gets a line for each failure that does not end the device: a method that threw, a client that was cut off. */
  readonly log?: ((line: string) => void) | undefined;
}

export interface AttachOptions extends CommonOptions {
  /** Seconds after which the NBD driver gives up on a request, and on the device. Default 0: never. */
  readonly timeoutSeconds?: number | undefined;
  /**
   * How to attach an NBD node: by `netlink`, where stopping this process for a while does no harm, or by `ioctl`.
   * Default `auto`: by netlink if it is available; if not, by ioctl, with a line in the log.
   */
  readonly attach?: "auto" | "netlink" | "ioctl" | undefined;
  /**
   * Let the node outlive this process: its users wait until another process attaches it with `recover` or `resume`. The
   * device must have an `identity`. A node that is waiting is taken over: the one that the target names, or with
   * `ublk`, `nbd` and `auto` any node with that identity.
   */
  readonly recover?: boolean | undefined;
  /** Take over a node with the same identity that was attached with `recover` and has lost its server. */
  readonly resume?: boolean | undefined;
}

export interface ServeOptions extends CommonOptions {
  /** The export's name. Default: the empty name, which clients ask for unless they are told another. */
  readonly exportName?: string | undefined;
  /** A text about the export, shown to clients. */
  readonly description?: string | undefined;
  /** How many clients may connect at once. Default 128. */
  readonly maxConnections?: number | undefined;
}

/** A device in use. `await using` closes it at the end of the block. */
export class Attachment implements AsyncDisposable {
  /**
   * Settles when the device is no longer in use and is closed: after {@link close}, or after another process has
   * disconnected it. Rejects with a UserError if it was cut off, or if some data was not written.
   */
  readonly done: Promise<void>;
  readonly #transport: Transport;
  readonly #end: { begin(timeoutMs: number | undefined): void };

  /** Made by {@link attach} and {@link serve}. */
  constructor(
    transport: Transport,
    end: { begin(timeoutMs: number | undefined): void },
    done: Promise<void>,
  ) {
    this.#transport = transport;
    this.#end = end;
    this.done = done;
    // A program that ignores `done` must not fail with an unhandled rejection.
    done.catch(() => undefined);
  }

  /** `/dev/ublkb0`, `/dev/nbd0`, or the URI of a server: `nbd+unix:///?socket=/run/disk.sock`. */
  get path(): string {
    return this.#transport.path;
  }

  /** Requests answered so far. */
  get requests(): number {
    return this.#transport.requests;
  }

  /** Requests and bytes since the start. */
  get statistics(): Statistics {
    return { ...this.#transport.statistics };
  }

  /**
   * Unmount first. For a node: writes back everything that the system still holds for the device, flushes and detaches
   * it. A server takes no more requests and answers those it has. Settles as {@link done} does; it may be called again.
   * @param options.timeoutMs milliseconds until the device is cut off; 0 is at once. It settles within a second after
   *   that, whatever the device does. Default: `stopTimeoutMs`. Of several calls, the shortest time counts.
   * @throws UserError if the device was cut off, or if some data could not be written back or flushed.
   */
  async close(options: { readonly timeoutMs?: number | undefined } = {}): Promise<void> {
    this.#end.begin(options.timeoutMs);
    await this.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Attaches a device to a node of this system. Needs root (CAP_SYS_ADMIN). Loads the driver if necessary.
 *
 * @param device is closed when it is no longer in use, and also if it could not be attached.
 * @param target `/dev/ublkb0` or `/dev/nbd0`; `ublk` or `nbd` for a free node; `auto` for ublk where the kernel offers
 *   it, else nbd.
 * @returns once the node can be used, including its partitions. The device is served while the program runs on.
 * @throws UserError if the node is unavailable, naming the cause and the remedy.
 *
 * @example
 *     import { attach, type BlockDevice } from "tsbuse";
 *
 *     const store = new Uint8Array(64 * 2 ** 20);
 *     const device: BlockDevice = {
 *       size: store.length,
 *       async read(target, offset) {
 *         target.set(store.subarray(offset, offset + target.length));
 *       },
 *       async write(source, offset) {
 *         store.set(source, offset);
 *       },
 *     };
 *     await using attachment = await attach(device, "auto");
 *     console.log(attachment.path); // /dev/ublkb0
 *     await Bun.$`mkfs.ext4 -q ${attachment.path}`;
 */
export async function attach(
  device: BlockDevice,
  target: string,
  options: AttachOptions = {},
): Promise<Attachment> {
  if (isServerTarget(target)) {
    await device.close?.();
    throw new UserError(`${target} is not a node: give "auto" or /dev/nbd0, or call serve()`);
  }
  return begin(device, target, options);
}

/**
 * Serves a device to NBD clients: qemu, nbdcopy, nbd-client and others. Needs neither root nor a driver.
 *
 * @param device is closed when it is no longer in use, and also if it could not be served.
 * @param target `unix:PATH`, a socket that only its owner can connect to; `tcp:HOST:PORT`, where port 0 is any free
 *   port; or `nbd+unix:///NAME?socket=PATH`, `nbd://HOST:PORT/NAME`. TCP has neither encryption nor passwords.
 * @returns once clients can connect. The device is served while the program runs on.
 * @throws UserError if the address is unavailable, naming the cause and the remedy.
 *
 * @example
 *     import { serve } from "tsbuse";
 *
 *     await using server = await serve(device, "unix:/tmp/disk.sock", { description: "my disk" });
 *     await Bun.$`nbdinfo ${server.path}`;
 */
export async function serve(
  device: BlockDevice,
  target: string,
  options: ServeOptions = {},
): Promise<Attachment> {
  if (!isServerTarget(target)) {
    await device.close?.();
    throw new UserError(`${target} is not an address: give unix:PATH or tcp:HOST:PORT, or call attach()`);
  }
  return begin(device, target, options);
}

async function begin(
  device: BlockDevice,
  target: string,
  options: AttachOptions & ServeOptions,
): Promise<Attachment> {
  const stop = new Stop(target, { ...options, log: shieldedLog(options.log) });
  const ready = Promise.withResolvers<Transport>();
  const done = serveDevice(device, target, { ...options, onReady: ready.resolve }, stop);
  // If it ends before it is ready, that is why it is not ready.
  done.catch(ready.reject);
  return new Attachment(await ready.promise, stop, done);
}
