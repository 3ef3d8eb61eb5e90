/**
 * A device on /dev/ublkbN: made, served, stopped and deleted by commands of the ublk driver.
 *
 * The main thread gives the commands, which the kernel carries out by itself. The requests are served by a thread for
 * each queue where any thread can reach the device, else by the main thread on its event loop.
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

/** How long queues and driver get to let go, in milliseconds. */
const RELEASE_LIMIT_MS = 1500;
/** The longest time that a timer can have. */
const ANCHOR_MS = 2 ** 31 - 1;

/** What a device in use is made of. */
interface Pieces {
  readonly control: Control;
  readonly info: DeviceInfo;
  readonly queues: readonly PreparedQueue[];
  readonly running: readonly Promise<void>[];
  /** Nodes that nobody else would make. */
  readonly made: readonly string[];
  /** /dev/ublkcN; -1 while it is not open. */
  readonly fd: number;
}

export class UblkAttachment implements Transport {
  /** The event loop is always looked after. */
  watchful = true;
  readonly traceRings: SharedArrayBuffer[] = [];
  readonly #target: number | undefined;
  readonly #dispatch: Dispatch;
  readonly #options: UblkOptions;
  /** What is added to it makes the queues answer everything with EIO. */
  readonly #refuseFd = eventfd();
  /** What is added to it makes the queues end when what they have begun is answered; the driver keeps the rest. */
  readonly #leaveFd = eventfd();
  readonly ledgers: Float64Array<SharedArrayBuffer>[] = [];
  #control: Control | undefined;
  #info: DeviceInfo | undefined;
  #writer: Promise<RequestWorker<WriteBackRequest, WriteBackReply>> | undefined;
  /** The device may wait for a server, and is not ours to end before it is ready: see {@link #fail}. */
  #takingOver: boolean;
  /** By which it is taken over, until it is served. */
  #takeOver: TakeOver | undefined;
  /** Another process is to serve the device from here on, unless something fails. */
  #lettingGo: LettingGo | undefined;
  /** How it is to end once it is served again. */
  #endLater: (() => void) | undefined;
  #detaching = false;
  /** The device is to wait for another server. */
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

  /** Undefined where the driver ends the device with its server. */
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

  /** As the kernel counts them: the device of a queue's thread is out of reach. */
  get inFlight(): number {
    return this.#info === undefined ? 0 : requestsInFlight(blockName(this.#info.id));
  }

  get statistics(): Statistics {
    return sumCounters(this.ledgers);
  }

  /**
   * Serves until the device is stopped: by {@link detach}, or by another process. `onReady` is called once, when the
   * node can be used and its partitions are there. Whatever was begun is undone.
   * @throws UserError when the driver refuses the device, or it was cut off.
   */
  async serve(onReady: () => void, end: End): Promise<void> {
    // With nothing to wait for but threads the runtime would not sleep: it would ask itself for the end, over and over.
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
      // The other process has a file of its own, or waits for the end of this one.
      if (this.#lettingGo !== undefined && !this.#usesThreads) await end.flush(this.#dispatch);
    } finally {
      this.#over = true;
      clearInterval(anchor);
      control?.close();
      close(this.#refuseFd);
      close(this.#leaveFd);
    }
  }

  /** Brings all data that the system holds for the node to the device, then stops it: serve() returns. */
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

  /** Whether the device is not ours to end, for now: once it is taken back, and served again, that is done. */
  #isAnothers(end: () => void): boolean {
    if (this.#lettingGo === undefined && !this.#takingOver) return false;
    this.#endLater = end;
    return true;
  }

  /** Ends at once: requests that are not answered fail, and what was not written back is lost. */
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
        // A queue that is gone leaves its requests unanswered: they are to fail, not to hang.
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
      // Until now the other one could take it back.
      void this.#takeOver?.done().catch(() => undefined);
      this.#takeOver = undefined;
      this.#endLater?.();
      await Promise.allSettled(running);
      if (!this.#hasLetGo) await end.flush(this.#dispatch).catch((error: unknown) => this.#note(error));
    } finally {
      // The driver is to see what it sees of a server that is killed: all of it goes at once, with this process.
      if (!this.#leaving)
        await this.#putAway({ control, info, queues, running, made, fd }, begun && !started);
    }
  }

  /** Takes the device from the server before this one, which has ended or lets go of it now. */
  async #takeFromLast(control: Control, info: DeviceInfo): Promise<void> {
    await this.#writer;
    this.#throwFailure();
    await this.#takeOver?.release();
    if (this.#takeOver !== undefined) await waitUntilLetGo(control, info);
    await beginTakeOver(control, info);
  }

  /** @param isHalfDone the driver has begun with a server, and does not know all of it. */
  async #putAway({ control, info, queues, running, made, fd }: Pieces, isHalfDone: boolean): Promise<void> {
    // A device that could not be resumed goes on waiting, and so does one that another process is to serve.
    const stays = this.#takingOver || this.#hasLetGo;
    if (stays && isHalfDone) await this.#letGo(info, fd);
    if (stays) addTo(this.#leaveFd);
    else await this.#stop(control, info, RELEASE_LIMIT_MS);
    await within(Promise.allSettled(running), RELEASE_LIMIT_MS);
    if (fd >= 0) close(fd);
    if (!this.#hasLetGo) removeNodes(made);
    // A queue of this thread is the driver's until the process has ended.
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
    // As the driver sees it, a server is gone when its thread is: that may be the one which runs this.
    return this.#usesThreads ? "stays" : "leaves";
  }

  /** Whether the device is to be served on, once the queues have ended. */
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

  /** Leaves a device that was not taken over to the end as a server does that has gone: for the next one. */
  async #letGo(info: DeviceInfo, fd: number): Promise<void> {
    try {
      await completeQueues(info, fd >= 0 ? fd : undefined);
    } catch (error) {
      // The next one will try it as well.
      this.#options.log?.(`${this.path} could not be left as it was: ${messageOf(error)}`);
    }
  }

  /** Ends the device with an error. */
  #fail(error: unknown): void {
    if (this.#over) return;
    this.#note(error);
    // Whatever fails here, another server may have better luck.
    if (this.#takingOver || this.#leaving) return;
    // It is another's by now, or will be.
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
    // How long the device may take is not for the driver to say.
    await this.#stop(control, info, Number.POSITIVE_INFINITY);
  }

  /**
   * Has the driver take all tags back, so that the queues end. It waits until every request is answered, and this
   * process, should it be killed, for the thread of the kernel that carries it out: after a while they are answered
   * here, whatever the device does.
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
