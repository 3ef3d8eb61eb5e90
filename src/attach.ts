/**
 * A device in use while the program goes on: `attach` for a node of this system, `serve` for NBD clients. Timers,
 * sockets and everything else of the program run beside it.
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
  /** Requests that the device has at once. Default 128. */
  readonly queueDepth?: number | undefined;
  /**
   * Milliseconds after which a request that the device has not answered is answered with EIO, with a line in the
   * log. Its buffer stays the device's until its promise settles. Default: none.
   */
  readonly requestTimeoutMs?: number | undefined;
  /**
   * Milliseconds to look for the next request before going to sleep: always so long, 0 for not at all. Default: up to
   * 0.05, as far as that pays.
   */
  readonly busyPollMs?: number | undefined;
  /**
   * Milliseconds that the end may take, whoever brings it about: data to be written back, the flush, the `close` of the
   * device. Then it is cut off, and what was not written is lost. Default: as long as it takes.
   */
  readonly stopTimeoutMs?: number | undefined;
  /** Gets a line about what does not stop the device: what a method threw, a client that was cut off. */
  readonly log?: ((line: string) => void) | undefined;
}

export interface AttachOptions extends CommonOptions {
  /** Seconds after which the NBD driver gives up on a request, and on the device. Default 0: never. */
  readonly timeoutSeconds?: number | undefined;
  /**
   * How an NBD node is attached: by `netlink`, which takes it no harm when this process is stopped for a while, or by
   * `ioctl`. Default `auto`: by netlink where it is to be had, with a line in the log where it is not.
   */
  readonly attach?: "auto" | "netlink" | "ioctl" | undefined;
  /**
   * Let the node outlive this process: its users wait until another process attaches it with `recover` or `resume`. The
   * device must have an `identity`. One that waits already is taken over: the one that the target names, or with
   * `ublk`, `nbd` and `auto` any of that identity.
   */
  readonly recover?: boolean | undefined;
  /** Take over a node that was attached with `recover`, and whose server is gone: one of the same identity. */
  readonly resume?: boolean | undefined;
}

export interface ServeOptions extends CommonOptions {
  /** The export's name. Default: the empty name, which clients ask for when they are given none. */
  readonly exportName?: string | undefined;
  /** A text about the export, shown to clients. */
  readonly description?: string | undefined;
  /** Clients at once. Default 128. */
  readonly maxConnections?: number | undefined;
}

/** A device in use. `await using` closes it at the end of the block. */
export class Attachment implements AsyncDisposable {
  /**
   * Settles when the device is not in use any more, and is closed: after {@link close}, or when somebody else has
   * disconnected it. Rejected with a UserError when it was cut off, or not all data was written.
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
    // A program that does not look at it has not failed for that.
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

  /** Counts since the start, in requests and bytes. */
  get statistics(): Statistics {
    return { ...this.#transport.statistics };
  }

  /**
   * Brings all data that the system still holds for a node to the device, flushes and detaches it; a server takes
   * no more requests and answers those it has. Settles as {@link done} does, however often it is called. Unmount first.
   * @param options.timeoutMs milliseconds until it is cut off; 0 for at once. It settles within a second after that,
   *   whatever the device does. Default: `stopTimeoutMs`. Of several calls the shortest time counts.
   * @throws UserError when the device was cut off, or not all data could be written back, or flushed.
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
 * Puts a device on a node of this system. Needs root (CAP_SYS_ADMIN); a driver that is not loaded is loaded.
 *
 * @param device is closed when it is not in use any more, also when it could not be attached.
 * @param target `/dev/ublkb0` or `/dev/nbd0`; `ublk` or `nbd` for one that is free; `auto` for ublk where the kernel
 *   offers it, else nbd.
 * @returns once the node can be used, its partitions included. The device is served while the program goes on.
 * @throws UserError when the node is not to be had, naming the cause and the remedy.
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
 * @param device is closed when it is not in use any more, also when it could not be served.
 * @param target `unix:PATH`, whose socket only the owner can connect to; `tcp:HOST:PORT`, where port 0 is any free
 *   one; or `nbd+unix:///NAME?socket=PATH`, `nbd://HOST:PORT/NAME`. TCP has no encryption and asks for no password.
 * @returns once clients can connect. The device is served while the program goes on.
 * @throws UserError when the address is not to be had, naming the cause and the remedy.
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
  // Whatever ends it before it is ready is why it is not.
  done.catch(ready.reject);
  return new Attachment(await ready.promise, stop, done);
}
