/**
 * A device on /dev/ublkbN: made, served, stopped and deleted with commands of the ublk driver.
 *
 * The main thread issues the commands, which the kernel executes by itself. If any thread can reach the device, a
 * thread for each queue serves the requests, otherwise the main thread on its event loop.
 */
import { within } from "../serving/deadline.ts";
import type { Dispatch } from "../dispatch.ts";
import { messageOf, UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { addTo, drain, eventfd } from "../libc/eventfd.ts";
import { close } from "../libc/file.ts";
import { requestsInFlight } from "../nodes/node-state.ts";
import { removeNodes } from "../nodes/partition-nodes.ts";
import type { WriteBackReply, WriteBackRequest } from "../nodes/write-back.worker.ts";
import { canUseThreads } from "../queues/count.ts";
import { makeCounters, sumCounters } from "../queues/counters.ts";
import { makeQueueRing } from "../queues/trace-ring.ts";
import type { End, Handover, Statistics, TakeOver, Transport } from "../transport.ts";
import { errno } from "../uapi/errno.ts";
import { UBLK_F_USER_RECOVERY } from "../uapi/ublk_cmd.ts";
import { RequestWorker } from "../serving/workers.ts";
import { Control } from "./control/control.ts";
import type { DeviceInfo } from "./control/device-info.ts";
import { deleteOwn, stopDevice } from "./control/end.ts";
import { blockName } from "./nodes.ts";
import type { UblkOptions } from "./options.ts";
import { makeBlockNodes, makeCharacterNode } from "./device-nodes.ts";
import { findDevice, type FoundDevice } from "./control/find.ts";
import { openCharacterDevice, startDevice } from "./control/set-up.ts";
import { beginTakeOver, completeQueues, findServed, waitUntilLetGo } from "./control/take-over.ts";
import { checkSizeUpdates, updateSize } from "./control/size.ts";
import { LettingGo } from "./letting-go.ts";
import { type QueuePlace, queuePlace } from "./queue/place.ts";
import { type PreparedQueue, prepareQueue } from "./queue/start.ts";

/** How long queues and driver may take to release the device, in milliseconds. */
const RELEASE_LIMIT_MS = 1500;
/** The longest time of a timer. */
const ANCHOR_MS = 2 ** 31 - 1;

/** The parts of a device in use. */
interface Pieces {
  readonly control: Control;
  readonly info: DeviceInfo;
  readonly queues: readonly PreparedQueue[];
  readonly running: readonly Promise<void>[];
  /** Nodes that we made, because nobody else would. */
  readonly made: readonly string[];
  /** /dev/ublkcN; -1 while it is not open. */
  readonly fd: number;
}

export class UblkAttachment implements Transport {
  /** The event loop is always watched. */
  watchful = true;
  readonly traceRings: SharedArrayBuffer[] = [];
  readonly #target: number | undefined;
  readonly #dispatch: Dispatch;
  readonly #options: UblkOptions;
  /** Adding to it makes the queues answer everything with EIO. */
  readonly #refuseFd = eventfd();
  /** Adding to it makes the queues end once everything begun is answered; the driver keeps the other requests. */
  readonly #leaveFd = eventfd();
  readonly ledgers: Float64Array<SharedArrayBuffer>[] = [];
  #control: Control | undefined;
  #info: DeviceInfo | undefined;
  #writer: Promise<RequestWorker<WriteBackRequest, WriteBackReply>> | undefined;
  /** The device may wait for a server, and is not ours to end before it is ready: see {@link #fail}. */
  #takingOver: boolean;
  /** The takeover in progress, until the device is served. */
  #takeOver: TakeOver | undefined;
  /** Another process will serve the device, unless something fails. */
  #lettingGo: LettingGo | undefined;
  /** What ends it once it is served again. */
  #endLater: (() => void) | undefined;
  #detaching = false;
  /** The device will wait for another server. */
  #leaving = false;
  #over = false;
  #failure: Error | undefined;

  /** @param target number of the device; undefined leaves it to the driver. */
  constructor(target: number | undefined, dispatch: Dispatch, options: UblkOptions) {
    this.#target = target;
    this.#dispatch = dispatch;
    this.#options = options;
    this.#takeOver = options.takeOver;
    this.#takingOver = options.resume === true || options.recover === true || options.takeOver !== undefined;
  }

  /** Undefined if the driver ends the device with its server. */
  get handover(): Handover | undefined {
    const info = this.#info;
    if (info === undefined || (info.flags & UBLK_F_USER_RECOVERY) === 0) return undefined;
    return {
      fds: {},
      letGo: () => this.#letGoFor(info),
      takeBack: () => this.#lettingGo?.end("taken back"),
      handedOn: () => this.#lettingGo?.end("handed on"),
    };
  }

  get isRecoverable(): boolean {
    return ((this.#info?.flags ?? 0) & UBLK_F_USER_RECOVERY) !== 0 && this.#dispatch.identity !== undefined;
  }

  get path(): string {
    return this.#info === undefined ? "ublk" : `/dev/${blockName(this.#info.id)}`;
  }

  get requests(): number {
    return this.statistics.requests;
  }

  /** The kernel's count: the device on a queue's thread is out of reach. */
  get inFlight(): number {
    return this.#info === undefined ? 0 : requestsInFlight(blockName(this.#info.id));
  }

  get statistics(): Statistics {
    return sumCounters(this.ledgers);
  }

  /**
   * Serves until the device is stopped, by {@link detach} or by another process. Calls `onReady` once, when the node
   * and its partitions are ready. Undoes everything if it fails.
   * @throws UserError if the driver refuses the device, or it was cut off.
   */
  async serve(onReady: () => void, end: End): Promise<void> {
    // With only threads to wait for, the runtime would not sleep but check for its end over and over.
    const anchor = setInterval(() => undefined, ANCHOR_MS);
    let control: Control | undefined;
    try {
      control = new Control(this.#options.log);
      this.#control = control;
      const { info, waits } = await this.#find(control);
      this.#takingOver = waits;
      this.#info = info;
      await this.#serveDevice(control, info, onReady, end);
      while (await this.#isTakenBack()) await this.#serveDevice(control, info, () => undefined, end);
      this.#throwFailure();
      // The other process has a descriptor of its own, or waits for the end of this one.
      if (this.#lettingGo !== undefined && !this.#usesThreads) await end.flush(this.#dispatch);
    } finally {
      this.#over = true;
      clearInterval(anchor);
      control?.close();
      close(this.#refuseFd);
      close(this.#leaveFd);
    }
  }

  /** Writes back all data that the system holds for the node, then stops the device: serve() returns. */
  detach(): void {
    if (this.#detaching || this.#over) return;
    if (this.#isAnothers(() => this.detach())) return;
    this.#detaching = true;
    this.#writeBackAndStop().catch((error: unknown) => this.#fail(error));
  }

  /** As {@link detach}, but the device stays, unless it has failed: see transport.ts. */
  leave(): void {
    if (this.#detaching || this.#over || this.#failure !== undefined) return;
    if (this.#isAnothers(() => this.leave())) return;
    this.#detaching = true;
    this.#leaving = true;
    addTo(this.#leaveFd);
  }

  /** Whether the device is being handed over and we must not end it now: `end` runs once we serve it again. */
  #isAnothers(end: () => void): boolean {
    if (this.#lettingGo === undefined && !this.#takingOver) return false;
    this.#endLater = end;
    return true;
  }

  /** Ends at once: unanswered requests fail, and data not written back is lost. */
  cut(reason: UserError): void {
    this.#fail(reason);
  }

  async checkResizable(): Promise<void> {
    await checkSizeUpdates(this.#served.control, this.path);
  }

  async showSize(size: number): Promise<void> {
    await updateSize(this.#served.control, this.#served.info, size);
  }

  get #served(): { readonly control: Control; readonly info: DeviceInfo } {
    const [control, info] = [this.#control, this.#info];
    if (control === undefined || info === undefined || this.#over)
      throw new UserError(`${this.path} is not served any more`);
    return { control, info };
  }

  async #serveDevice(control: Control, info: DeviceInfo, onReady: () => void, end: End): Promise<void> {
    const [resuming, isSwap] = [this.#takingOver, this.#options.swap === true];
    const queues: PreparedQueue[] = [];
    const running: Promise<void>[] = [];
    const made: string[] = [];
    let fd = -1;
    let begun = false;
    let started = false;
    try {
      this.#throwFailure();
      made.push(...makeCharacterNode(info.id));
      for (let index = 0; index < info.queues; index += 1)
        queues.push(
          await this.#prepareQueue({
            ...queuePlace(info, index, this.#refuseFd, this.#leaveFd),
            populated: isSwap,
            traceRing: (this.traceRings[index] ??= makeQueueRing(isSwap)),
          }),
        );
      this.#throwFailure();
      // Started now, so that the end need not wait for a thread.
      this.#writer = startWriter();
      if (resuming) await this.#takeFromLast(control, info);
      begun = true;
      fd = openCharacterDevice(info.id);
      for (const queue of queues) {
        await queue.handOver(fd);
        const ended = queue.ended();
        // A queue that is gone leaves its requests unanswered: make them fail instead of hanging.
        ended.catch((error: unknown) => this.#fail(error));
        running.push(ended);
      }
      await startDevice(control, info, resuming);
      started = true;
      this.#throwFailure();
      made.push(...makeBlockNodes(info.id, this.#options.log));
      onReady();
      if (resuming) this.#throwFailure();
      this.#takingOver = false;
      // Until now the previous server could take it back.
      void this.#takeOver?.done().catch(() => undefined);
      this.#takeOver = undefined;
      this.#endLater?.();
      await Promise.allSettled(running);
      if (!this.#hasLetGo) await end.flush(this.#dispatch).catch((error: unknown) => this.#note(error));
    } finally {
      // The driver must see the same as when a server is killed: everything goes at once, with this process.
      if (!this.#leaving)
        await this.#putAway({ control, info, queues, running, made, fd }, begun && !started);
    }
  }

  /** Takes the device from the previous server, which has ended or releases it now. */
  async #takeFromLast(control: Control, info: DeviceInfo): Promise<void> {
    await this.#writer;
    this.#throwFailure();
    await this.#takeOver?.release();
    if (this.#takeOver !== undefined) await waitUntilLetGo(control, info);
    await beginTakeOver(control, info);
  }

  /** @param isHalfDone the driver has begun to accept a server, but does not have all its queues. */
  async #putAway({ control, info, queues, running, made, fd }: Pieces, isHalfDone: boolean): Promise<void> {
    // A device that could not be resumed keeps waiting, and so does one that another process will serve.
    const stays = this.#takingOver || this.#hasLetGo;
    if (stays && isHalfDone) await this.#letGo(info, fd);
    if (stays) addTo(this.#leaveFd);
    else await this.#stop(control, info, RELEASE_LIMIT_MS);
    await within(Promise.allSettled(running), RELEASE_LIMIT_MS);
    if (fd >= 0) close(fd);
    if (!this.#hasLetGo) removeNodes(made);
    // A queue on this thread belongs to the driver until the process has ended.
    const ending = this.#hasLetGo && !this.#usesThreads ? [] : queues;
    const threads = [...ending.map((queue) => queue.end()), this.#writer?.then((writer) => writer.end())];
    if (!stays) await deleteOwn(control, info, RELEASE_LIMIT_MS, this.#options.log);
    await Promise.allSettled(threads);
  }

  async #find(control: Control): Promise<FoundDevice> {
    if (this.#takeOver === undefined) return findDevice(control, this.#target, this.#dispatch, this.#options);
    return { info: await findServed(control, this.#target, this.#dispatch, this.#options), waits: true };
  }

  get #usesThreads(): boolean {
    return canUseThreads(this.#dispatch, this.#options);
  }

  get #hasLetGo(): boolean {
    return this.#lettingGo !== undefined && this.#failure === undefined;
  }

  async #letGoFor(info: DeviceInfo): Promise<"stays" | "leaves"> {
    if (this.#detaching || this.#over || this.#lettingGo !== undefined || this.#failure !== undefined)
      throw new UserError(`/dev/${blockName(info.id)} is ending, or is being taken over: try again`);
    this.#lettingGo = new LettingGo();
    addTo(this.#leaveFd);
    await this.#lettingGo.left;
    // For the driver, a server is gone once its thread is, and that may be the thread that runs this.
    return this.#usesThreads ? "stays" : "leaves";
  }

  /** Whether to serve the device again, once the queues have ended. */
  async #isTakenBack(): Promise<boolean> {
    const lettingGo = this.#lettingGo;
    if (lettingGo === undefined || this.#failure !== undefined) {
      lettingGo?.fail(this.#failure);
      return false;
    }
    lettingGo.hasLeft();
    if ((await lettingGo.outcome) === "handed on") return false;
    if (!this.#usesThreads) {
      this.#options.log?.(`${this.path} waits for its next server: the one that was to take it over is gone`);
      return false;
    }
    this.#lettingGo = undefined;
    this.#takingOver = true;
    drain(this.#leaveFd);
    return true;
  }

  #note(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(messageOf(error));
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #prepareQueue(place: QueuePlace): Promise<PreparedQueue> {
    const counters = makeCounters();
    this.ledgers.push(counters);
    const failed = (error: unknown): void => this.#fail(error);
    return prepareQueue(place, this.#dispatch, counters, this.#options, failed);
  }

  /** After an incomplete takeover, leaves the device to the next server, as a server that has gone would. */
  async #letGo(info: DeviceInfo, fd: number): Promise<void> {
    try {
      await completeQueues(info, fd >= 0 ? fd : undefined);
    } catch (error) {
      // The next server will try it as well.
      this.#options.log?.(`${this.path} could not be left as it was: ${messageOf(error)}`);
    }
  }

  /** Ends the device with an error. */
  #fail(error: unknown): void {
    if (this.#over) return;
    this.#note(error);
    // Whatever fails here, another server may have better luck.
    if (this.#takingOver || this.#leaving) return;
    // It belongs to another process by now, or soon will.
    if (this.#lettingGo?.isGone === true) return this.#lettingGo.end("handed on");
    addTo(this.#refuseFd);
    if (this.#control !== undefined && this.#info !== undefined)
      void this.#stop(this.#control, this.#info, RELEASE_LIMIT_MS);
  }

  async #writeBackAndStop(): Promise<void> {
    const [control, info, writer] = [this.#control, this.#info, await this.#writer];
    if (control === undefined || info === undefined || writer === undefined) return;
    writer.send({ name: blockName(info.id) });
    const { result } = await writer.next();
    if (result < 0)
      this.#failure ??= new UserError(
        `${this.path}: not all data could be written back: ${errorText(-result)}`,
      );
    // No limit: the device may take as long as it needs.
    await this.#stop(control, info, Number.POSITIVE_INFINITY);
  }

  /**
   * Makes the driver take back all tags, so that the queues end. The driver waits until every request is answered, and
   * this process, if it is killed, waits for the kernel's thread that executes the command. So after a while the
   * requests are answered here, whatever the device does.
   */
  async #stop(control: Control, info: DeviceInfo, limitMs: number): Promise<void> {
    const result = await stopDevice(control, info.id, limitMs);
    if (result !== -errno.ETIMEDOUT || this.#over) return;
    this.#options.log?.(`${this.path}: the device does not answer: what is in flight fails`);
    addTo(this.#refuseFd);
  }
}

async function startWriter(): Promise<RequestWorker<WriteBackRequest, WriteBackReply>> {
  const worker = new RequestWorker<WriteBackRequest, WriteBackReply>("writeBack");
  await worker.next();
  return worker;
}
