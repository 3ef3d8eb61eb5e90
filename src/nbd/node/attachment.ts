/**
 * A device on /dev/nbdN: serves it, and detaches it.
 *
 * The main thread runs the request loop on one end of a socket pair, or leaves it to threads with a pair each: see
 * connections.ts. A link holds the other ends in the kernel. A worker does what a thread that answers requests must
 * not do: it opens the node, so that the kernel finds its partitions, and flushes and disconnects it.
 */
import { within } from "../../serving/deadline.ts";
import type { Dispatch } from "../../dispatch.ts";
import { messageOf, UserError } from "../../errors.ts";
import type { End, Handover, Statistics, TakeOver, Transport } from "../../transport.ts";
import { RequestWorker } from "../../serving/workers.ts";
import type { LinkedNode, NodeLink } from "./link.ts";
import type { Ending } from "../connection/session.ts";
import { NodeConnections } from "./connections.ts";
import { socketName } from "./inherit.ts";
import type { ConnectionOptions } from "./kernel-connection.ts";
import type { NodeReply, NodeRequest } from "./node.worker.ts";
import { requestsInFlight } from "../../nodes/node-state.ts";
import { makePartitionNodes, removeNodes } from "../../nodes/partition-nodes.ts";

/** How long the node's worker may take to report once the connection has ended, in milliseconds. */
const REPORT_DEADLINE_MS = 5000;

export interface AttachmentOptions extends ConnectionOptions {
  /** The takeover in progress, until whose end the link is foreign. */
  readonly takeOver?: TakeOver | undefined;
  /** Two processes may have the device open at once, as long as only one of them uses it. */
  readonly canBeShared?: boolean | undefined;
}

export class NodeAttachment implements Transport {
  readonly path: string;
  readonly #name: string;
  readonly #dispatch: Dispatch;
  readonly #link: NodeLink;
  readonly #connections: NodeConnections;
  #nodeWorker: RequestWorker<NodeRequest, NodeReply> | undefined;
  /** Settles when the node's worker sends no more replies; never rejects. */
  #followed: Promise<void> = Promise.resolve();
  /** Ends what {@link showSize} has begun. */
  #resized: ((failure: string | undefined) => void) | undefined;
  /** Set until we have taken the node: from then on another process may take it. */
  #takeOver: TakeOver | undefined;
  readonly #canBeShared: boolean;
  readonly #sockets: readonly number[];
  /** Whether another process serves the node: "for now" if we may get it back, or take it over; "for good". */
  #foreign: "no" | "for now" | "for good" = "no";
  #takenBack: PromiseWithResolvers<never> | undefined;
  /** What ends it once it is served again. */
  #endLater: (() => void) | undefined;
  /** Settles when no connection is served any more. */
  readonly #ended = Promise.withResolvers<void>();
  #detaching = false;
  /** The node will wait for another server. */
  #leaving = false;
  /** No more requests will arrive. */
  #isEnding = false;
  #over = false;
  #failure: Error | undefined;
  #isWatchful = true;
  #partitionNodes: readonly string[] = [];
  readonly #log: (line: string) => void;

  /**
   * Serves nothing yet. On failure the node remains the caller's.
   * @param node released at the end of {@link serve}.
   */
  constructor(node: LinkedNode, dispatch: Dispatch, options: AttachmentOptions = {}) {
    const { name } = node.link;
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#dispatch = dispatch;
    this.#log = options.log ?? (() => undefined);
    this.#link = node.link;
    this.#sockets = node.sockets;
    this.#takeOver = options.takeOver;
    if (this.#takeOver !== undefined) this.#foreign = "for now";
    this.#canBeShared = options.canBeShared === true || dispatch.shared !== undefined;
    this.#connections = new NodeConnections(node.sockets, dispatch, options);
  }

  get isRecoverable(): boolean {
    return this.#link.isRecoverable === true;
  }

  /** A device that is to be closed before another process opens it may be lost then, but for one that is waited for. */
  get handover(): Handover | undefined {
    const { fds } = this.#link;
    if (fds === undefined || !(this.#canBeShared || this.isRecoverable)) return undefined;
    const sockets = this.#sockets.map((fd, index) => [socketName(index), fd]);
    return {
      fds: { ...fds, ...Object.fromEntries(sockets) },
      letGo: () => this.#letGo(),
      takeBack: () => this.#takeBack(),
      handedOn: () => this.#handOn(),
    };
  }

  get requests(): number {
    return this.statistics.requests;
  }

  get statistics(): Statistics {
    return this.#connections.statistics;
  }

  get ledgers(): readonly Float64Array[] {
    return this.#connections.ledgers;
  }

  get traceRings(): readonly SharedArrayBuffer[] {
    return this.#connections.traceRings;
  }

  /** The kernel's count: the device on a queue's thread is out of reach. */
  get inFlight(): number {
    return requestsInFlight(this.#name);
  }

  /**
   * Serves until the device is detached, by {@link detach} or by another process. Calls `onReady` once, when the node
   * and its partitions are ready.
   * @throws UserError if the kernel did not start, the connection ended unasked, or not all data was written.
   */
  async serve(onReady: () => void, end: End): Promise<void> {
    try {
      this.#connections.onEnding = () => {
        this.#isEnding = true;
        end.startClock();
      };
      if (this.#failure === undefined) await this.#connections.prepare();
      if (this.#failure === undefined) await this.#startWorker();
      if (this.#takeOver !== undefined) await this.#takeNode(this.#takeOver);
      if (this.#failure === undefined) this.#settle(onReady);
      const ended = await this.#connections.serve().catch((error: unknown) => this.#note(error));
      this.#ended.resolve();
      // Somebody disconnected it before it was released.
      if (this.#foreign === "for now") this.#foreign = "no";
      // Otherwise the requests of a failed thread would wait for ever, and with them whoever writes back.
      if (ended === undefined) this.#link.letGo();
      const { ending = "closed", fault = "", left = 0 } = ended ?? {};
      // Somebody disconnected it at the same moment.
      if (this.#leaving && ending === "disconnect") this.#stay(false);
      if (left > 0) this.#log(`the device still has ${left} requests that it never answered`);
      // Another process with the device open does not wait for its data.
      if (this.#foreign === "no" || !this.#canBeShared)
        await end.flush(this.#dispatch).catch((error: unknown) => this.#note(error));
      // The kernel's request to disconnect arrives before the worker reports how the write-back went.
      if (this.#detaching && !this.#leaving) await within(this.#followed, REPORT_DEADLINE_MS);
      if (this.#failure !== undefined) throw this.#failure;
      if (ending !== (this.#leaving || this.#foreign !== "no" ? "stopped" : "disconnect"))
        throw new UserError(this.#brokenMessage(ending, fault));
    } finally {
      await this.#release();
    }
  }

  set watchful(on: boolean) {
    this.#isWatchful = on;
    this.#watch(on);
  }

  #watch(on: boolean): void {
    if (this.#over) return;
    this.#connections.watchful = on;
  }

  /** Writes back all data that the system holds for the node, then disconnects: serve() returns. */
  detach(): void {
    if (this.#detaching || this.#over || this.#isAnothers(() => this.detach())) return;
    this.#watch(true);
    this.#detaching = true;
    this.#send("detach");
  }

  /** As {@link detach}, but the node stays: see transport.ts. */
  leave(): void {
    if (this.#detaching || this.#over || this.#isEnding || this.#isAnothers(() => this.leave())) return;
    this.#watch(true);
    this.#stay(true);
    this.#connections.stop();
  }

  #stay(on: boolean): void {
    this.#detaching = this.#leaving = on;
    if (on) this.#link.keep?.();
    else this.#link.settled();
  }

  checkResizable(): void {
    if (this.#detaching || this.#over || this.#nodeWorker === undefined)
      throw new UserError(`${this.path} is not served any more`);
  }

  /** Uses the node's worker, because the kernel waits for answers from this thread meanwhile. */
  async showSize(size: number): Promise<void> {
    this.checkResizable();
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.#resized = resolve;
    const { blockSize } = this.#dispatch;
    this.#nodeWorker?.send({ ...this.#about, task: "resize", size, blockSize });
    const failure = await promise;
    if (failure !== undefined) throw new UserError(`${this.path}: ${failure}`);
  }

  /** Cuts the connection: unanswered requests fail, and data not written back is lost. */
  cut(reason: UserError): void {
    if (this.#over) return;
    this.#failure ??= reason;
    if (this.#foreign === "for now" && this.#takeOver === undefined) this.#handOn();
    this.#isEnding = true;
    this.#shutDown();
    this.#connections.leave();
    // The driver does not fail requests in flight by itself when the connection ends. The thread that writes back would
    // wait for them, and so would the end of the process, even a kill.
    this.#link.letGo();
  }

  async #startWorker(): Promise<void> {
    // Whatever ends the link also ends the connection, so that the loop notices.
    await this.#link.begin(() => this.#shutDown());
    if (this.#failure !== undefined) return;
    const nodeWorker = new RequestWorker<NodeRequest, NodeReply>("node");
    this.#nodeWorker = nodeWorker;
    await nodeWorker.next();
  }

  #settle(onReady: () => void): void {
    if (this.#nodeWorker === undefined) return;
    const { untold } = this.#link;
    this.#nodeWorker.send({ ...this.#about, task: "settle", untold });
    this.#followed = this.#follow(this.#nodeWorker, onReady);
  }

  /** Takes the node from the process that serves it. @throws UserError if that fails. */
  async #takeNode(takeOver: TakeOver): Promise<void> {
    this.#throwFailure();
    if (!(await takeOver.release()))
      throw new UserError(
        `the process that served ${this.path} was killed before it had let go: ${
          this.isRecoverable ? `run "tsbuse recover ${this.path}" with the same device` : "attach it anew"
        }`,
      );
    this.#throwFailure();
    await takeOver.done();
    this.#takeOver = undefined;
    this.#foreign = "no";
    this.#link.setForeign?.(false);
  }

  /** Whether the device is being handed over and we must not end it now: `end` runs once we serve it again. */
  #isAnothers(end: () => void): boolean {
    if (this.#foreign === "no") return false;
    this.#endLater = end;
    return true;
  }

  async #letGo(): Promise<"stays" | "leaves"> {
    if (this.#detaching || this.#over || this.#isEnding || this.#foreign !== "no")
      throw new UserError(`${this.path} is ending, or is being taken over: try again`);
    this.#foreign = "for now";
    this.#watch(true);
    const ended = this.#ended.promise.then(() => {
      throw new UserError(`${this.path} ended before it was let go of`);
    });
    this.#takenBack = Promise.withResolvers<never>();
    await Promise.race([this.#connections.pause(), ended, this.#takenBack.promise]);
    return this.#canBeShared ? "stays" : "leaves";
  }

  #takeBack(): void {
    if (this.#foreign !== "for now" || this.#over) return;
    this.#foreign = "no";
    this.#takenBack?.reject(new UserError(`${this.path} was taken back before it was let go of`));
    this.#connections.resume();
    this.#watch(this.#isWatchful);
    this.#endLater?.();
    this.#endLater = undefined;
  }

  #handOn(): void {
    if (this.#foreign !== "for now" || this.#over) return;
    this.#foreign = "for good";
    this.#link.setForeign?.(true);
    this.#connections.stop();
  }

  /** Takes the replies of the node's worker: first that of `settle`, perhaps later that of `detach`. */
  async #follow(nodeWorker: RequestWorker<NodeRequest, NodeReply>, onReady: () => void): Promise<void> {
    try {
      const settled = await nodeWorker.next();
      if (settled.warning !== undefined) this.#log(settled.warning);
      // Somebody else has disconnected it.
      const isOver = this.#over || this.#isEnding;
      if (!isOver && settled.node !== undefined && this.#link.wantsGuard) this.#link.guard(settled.node);
      this.#send("close");
      if (isOver) return;
      if (settled.failure !== undefined) throw new UserError(`${this.path}: ${settled.failure}`);
      this.#partitionNodes = makePartitionNodes(this.#name, this.#log);
      this.#watch(this.#isWatchful);
      onReady();
      this.#link.settled();
      let detached = await nodeWorker.next();
      for (; detached.task === "resize"; detached = await nodeWorker.next())
        this.#resized?.(detached.failure);
      if (detached.failure !== undefined) throw new UserError(`${this.path}: ${detached.failure}`);
    } catch (error) {
      this.#note(error);
      this.#shutDown();
    }
  }

  #send(task: "close" | "detach"): void {
    this.#nodeWorker?.send({ ...this.#about, task });
  }

  get #about(): Pick<NodeRequest, "name" | "byNetlink"> {
    return { name: this.#name, byNetlink: this.#link.byNetlink };
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #note(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(messageOf(error));
  }

  #brokenMessage(ending: Ending, fault: string): string {
    const cause = ending === "broken" ? fault : "the kernel closed the connection";
    return `${this.path} was cut off (${cause}): see "dmesg", a request time-out or a stop signal does this`;
  }

  #shutDown(): void {
    if (this.#over || this.#foreign !== "no") return;
    // The connections read the end of their streams.
    this.#connections.shutDown();
  }

  /** Undoes what the constructor and the workers did. The node is then free, unless somebody has it open. */
  async #release(): Promise<void> {
    this.#shutDown();
    this.#over = true;
    this.#resized?.("it is not served any more");
    if (!this.#leaving && this.#foreign === "no") removeNodes(this.#partitionNodes);
    await this.#link.release();
    await Promise.all([this.#connections.close(), this.#nodeWorker?.end()]);
  }
}
