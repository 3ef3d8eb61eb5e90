/**
 * A device on /dev/ublkbN: made, served, stopped and deleted by commands of the ublk driver.
 *
 * The main thread gives the commands, which the kernel carries out by itself. The requests are served by a thread for
 * each queue where any thread can reach the device, else by the main thread on its event loop.
 */
import { within } from "../deadline.ts";
import type { Dispatch } from "../dispatch.ts";
import { UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { close } from "../libc/file.ts";
import { openersOf } from "../nodes/openers.ts";
import { removeNodes } from "../nodes/partition-nodes.ts";
import type { WriteBackReply, WriteBackRequest } from "../nodes/write-back.worker.ts";
import type { Statistics, Transport } from "../transport.ts";
import { errno } from "../uapi/errno.ts";
import { UBLK_F_NEED_GET_DATA } from "../uapi/ublk_cmd.ts";
import { RequestWorker } from "../workers.ts";
import { Control } from "./control.ts";
import type { DeviceInfo } from "./device-info.ts";
import { deleteDevice, stopDevice } from "./end.ts";
import { blockName, deviceInfo } from "./nodes.ts";
import type { UblkOptions } from "./options.ts";
import { makeBlockNodes, makeCharacterNode } from "./device-nodes.ts";
import { makeDevice, openCharacterDevice, resumeDevice, startDevice } from "./set-up.ts";
import { startQueue } from "./start-queue.ts";
import { makeCounters, sumCounters } from "./statistics.ts";

/** How long a device gets to answer what is in flight when it is stopped, in milliseconds. */
const STOP_LIMIT_MS = 60_000;
/** How long the end may take once the device has been stopped, or is cut off. */
const RELEASE_LIMIT_MS = 1500;
/** How long a deleted device is watched until its last user has let go of it. */
const GONE_LIMIT_MS = 200;
const POLL_MS = 5;
/** The longest time that a timer can have. */
const ANCHOR_MS = 2 ** 31 - 1;

export class UblkAttachment implements Transport {
  /** The event loop is always looked after. */
  watchful = true;
  readonly #target: number | undefined;
  readonly #dispatch: Dispatch;
  readonly #options: UblkOptions;
  readonly #cut = Promise.withResolvers<void>();
  readonly #counters: Float64Array<SharedArrayBuffer>[] = [];
  #control: Control | undefined;
  #info: DeviceInfo | undefined;
  #writer: Promise<RequestWorker<WriteBackRequest, WriteBackReply>> | undefined;
  #detaching = false;
  #failure: Error | undefined;

  /** @param target number of the device; undefined leaves it to the driver. */
  constructor(target: number | undefined, dispatch: Dispatch, options: UblkOptions) {
    this.#target = target;
    this.#dispatch = dispatch;
    this.#options = options;
  }

  get path(): string {
    return this.#info === undefined ? "ublk" : `/dev/${blockName(this.#info.id)}`;
  }

  get requests(): number {
    return this.statistics.requests;
  }

  get statistics(): Statistics {
    return sumCounters(this.#counters);
  }

  /**
   * Serves until the device is stopped: by {@link detach}, or by another process. `onReady` is called once, when the
   * node can be used and its partitions are there. Whatever was begun is undone.
   * @throws UserError when the driver refuses the device, or it was cut off.
   */
  async serve(onReady: () => void): Promise<void> {
    const control = new Control();
    this.#control = control;
    // With nothing to wait for but threads the runtime would not sleep: it would ask itself for the end, over and over.
    const anchor = setInterval(() => undefined, ANCHOR_MS);
    try {
      const make = this.#options.resume === true ? resumeDevice : makeDevice;
      const info = await make(control, this.#target, this.#dispatch, this.#options);
      this.#info = info;
      await this.#serveDevice(control, info, onReady);
      if (this.#failure !== undefined) throw this.#failure;
    } finally {
      clearInterval(anchor);
      control.close();
    }
  }

  /** Brings all data that the system holds for the node to the device, then stops it: serve() returns. */
  detach(): void {
    if (this.#detaching) return;
    this.#detaching = true;
    this.#writeBackAndStop().catch((error: unknown) => this.#fail(error));
  }

  /** Ends at once: requests that are not answered fail, and what was not written back is lost. */
  cut(): void {
    this.#failure ??= new UserError(
      `${this.path} was cut off before its data was written back: check the file system`,
    );
    void this.#stop(RELEASE_LIMIT_MS).then(() => this.#cut.resolve());
  }

  async #serveDevice(control: Control, info: DeviceInfo, onReady: () => void): Promise<void> {
    const resuming = this.#options.resume === true;
    const ended: Promise<unknown>[] = [];
    let fd = -1;
    let started = false;
    const made: string[] = [];
    try {
      made.push(...makeCharacterNode(info.id));
      fd = openCharacterDevice(info.id);
      for (let index = 0; index < info.queues; index += 1) {
        const { queueDepth: depth, requestBytes } = info;
        const counters = makeCounters();
        this.#counters.push(counters);
        const needGetData = (info.flags & UBLK_F_NEED_GET_DATA) !== 0;
        const place = { fd, index, depth, requestBytes, needGetData };
        ended.push((await startQueue(place, this.#dispatch, counters, this.#options)).ended);
      }
      // A queue that fails leaves its requests unanswered: they are to fail, not to hang.
      for (const each of ended) each.catch((error: unknown) => this.#fail(error));
      await startDevice(control, info, resuming);
      started = true;
      made.push(...makeBlockNodes(info.id, this.#options.log));
      // Started now, so that the end need not wait for a thread.
      this.#writer = startWriter();
      onReady();
      await Promise.race([Promise.allSettled(ended), this.#cut.promise]);
      await this.#dispatch.flush();
    } finally {
      // A device that could not be resumed goes on waiting.
      const keep = resuming && !started;
      if (!keep) await this.#stop(RELEASE_LIMIT_MS);
      if (!keep) await within(Promise.allSettled(ended), RELEASE_LIMIT_MS);
      if (fd >= 0) close(fd);
      removeNodes(made);
      if (!keep) await this.#delete(control, info);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
    void this.#stop(STOP_LIMIT_MS);
  }

  async #writeBackAndStop(): Promise<void> {
    const writer = await this.#writer;
    writer?.send({ name: blockName(this.#info?.id ?? 0) });
    const result = (await writer?.next())?.result ?? 0;
    if (result < 0)
      this.#failure ??= new UserError(
        `${this.path}: not all data could be written back: ${errorText(-result)}`,
      );
    await this.#stop(STOP_LIMIT_MS);
  }

  /** Makes the driver take all tags back, so that the queues end. */
  async #stop(limitMs: number): Promise<void> {
    if (this.#control === undefined || this.#info === undefined) return;
    const result = await stopDevice(this.#control, this.#info.id, limitMs);
    if (result === -errno.ETIMEDOUT)
      this.#options.log?.(`${this.path} cannot be stopped: the device does not answer what is in flight`);
  }

  async #delete(control: Control, { id }: DeviceInfo): Promise<void> {
    await deleteDevice(control, id, RELEASE_LIMIT_MS);
    const deadline = performance.now() + GONE_LIMIT_MS;
    while (performance.now() < deadline) {
      if ((await deviceInfo(control, id)) === undefined) return;
      await Bun.sleep(POLL_MS);
    }
    const openers = openersOf(this.path);
    if (openers.length > 0)
      this.#options.log?.(
        `${this.path} is gone, but its number is taken until ${openers.join(", ")} closes it`,
      );
  }
}

async function startWriter(): Promise<RequestWorker<WriteBackRequest, WriteBackReply>> {
  const worker = new RequestWorker<WriteBackRequest, WriteBackReply>("writeBack");
  await worker.next();
  return worker;
}
