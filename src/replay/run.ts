/** Repeats requests, with their original timing or as fast as they are answered. */
import type { Dispatch, Status } from "../dispatch.ts";
import { Histogram } from "../layers/histogram.ts";
import { OTHER } from "../queues/ledger.ts";
import { OrderPlace, type Ranged, RangeOrder } from "../serving/range-order.ts";
import { type CommandName, COMMANDS, type PlannedRequest } from "./plan.ts";
import { fillPattern } from "./pattern.ts";
import type { BufferPool, LentMemory } from "./buffers.ts";

export interface Clock {
  /** Milliseconds. */
  now(): number;
  sleep(milliseconds: number): Promise<void>;
}

export interface ReplayOptions {
  /** Each as soon as there is room for it, whenever it came. */
  readonly fast: boolean;
  /** Requests in flight, at most. */
  readonly depth: number;
  readonly clock: Clock;
  /** Ends it: no more requests are begun. */
  readonly stop?: AbortSignal | undefined;
}

/** Of one command. */
export interface CommandResult {
  readonly command: CommandName;
  requests: number;
  errors: number;
  /** As many as failed when they were recorded. */
  errorsThen: number;
  /** Microseconds. */
  readonly now: Histogram;
  readonly before: Histogram;
}

export interface ReplayResult {
  /** Of those that there were. */
  readonly commands: readonly CommandResult[];
  /** Milliseconds, from the first request to the last answer. */
  readonly tookMs: number;
  readonly tookThenMs: number;
  /** How late a request was begun at most, in milliseconds; 0 if the replay is as fast as possible. */
  readonly lateMs: number;
  /** How many were left out: the target does not know the command. */
  readonly leftOut: number;
}

/** How long until the event loop gets a turn, in milliseconds, even if the device answers everything at once. */
const TURN_MS = 10;

/** Repeats all of it. What fails is counted. */
export async function replay(
  plan: readonly PlannedRequest[],
  target: Dispatch,
  buffers: BufferPool,
  options: ReplayOptions,
): Promise<ReplayResult> {
  return new Replay(target, buffers, options).all(plan);
}

class Replay {
  readonly #order = new RangeOrder(undefined, Infinity);
  readonly #results = new Map<CommandName, CommandResult>();
  #inFlight = 0;
  /** Called when one has been answered. */
  #answered: (() => void) | undefined;
  #lateMs = 0;
  #leftOut = 0;

  constructor(
    readonly target: Dispatch,
    readonly buffers: BufferPool,
    readonly options: ReplayOptions,
  ) {}

  async all(plan: readonly PlannedRequest[]): Promise<ReplayResult> {
    const { clock, depth, fast } = this.options;
    const began = clock.now();
    let turnAt = began + TURN_MS;
    for (const request of plan) {
      if (!fast) await this.#until(began + request.at);
      while (this.#inFlight >= depth) await this.#oneLess();
      if (clock.now() >= turnAt) {
        await clock.sleep(0);
        turnAt = clock.now() + TURN_MS;
      }
      if (this.#isStopped) break;
      if (!fast) this.#lateMs = Math.max(this.#lateMs, clock.now() - began - request.at);
      this.#begin(request);
    }
    while (this.#inFlight > 0) await this.#oneLess();
    return {
      commands: Object.keys(COMMANDS).flatMap((name) => this.#results.get(name as CommandName) ?? []),
      tookMs: clock.now() - began,
      tookThenMs: plan.reduce((most, { at, took }) => Math.max(most, at + (took || 0) / 1000), 0),
      lateMs: this.#lateMs,
      leftOut: this.#leftOut,
    };
  }

  get #isStopped(): boolean {
    return this.options.stop?.aborted === true;
  }

  async #until(time: number): Promise<void> {
    const { clock } = this.options;
    for (let left = time - clock.now(); left > 0 && !this.#isStopped; left = time - clock.now())
      await clock.sleep(left);
  }

  #oneLess(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#answered = resolve;
    return promise;
  }

  #begin(planned: PlannedRequest): void {
    const { command } = planned;
    const { capabilities } = this.target;
    const isKnown = {
      read: true,
      flush: true,
      write: capabilities.write,
      trim: capabilities.trim,
      zero: capabilities.writeZeroes,
    };
    if (!isKnown[command]) {
      this.#leftOut += 1;
      return;
    }
    this.#inFlight += 1;
    const request = new ReplayedRequest(planned, () => this.#perform(request));
    request.arrived = this.options.clock.now();
    if (this.#order.isFree(request)) {
      this.#order.insert(request);
      this.#perform(request);
    } else this.#order.wait(request);
  }

  #perform(request: ReplayedRequest): void {
    const memory = this.#memoryFor(request.planned);
    const ended = (status: number): void => {
      if (memory !== undefined) this.buffers.giveBack(memory);
      this.#ended(request, status);
    };
    const status = this.#ask(request.planned, memory?.bytes);
    if (typeof status === "number") ended(status);
    else void status.then(ended);
  }

  #memoryFor({ command, offset, length, payload }: PlannedRequest): LentMemory | undefined {
    if (command !== "read" && command !== "write") return undefined;
    const memory = this.buffers.take(length);
    if (command === "write" && payload !== undefined) memory.bytes.set(payload);
    else if (command === "write") fillPattern(memory.bytes, offset);
    return memory;
  }

  #ask({ command, offset, length, fua }: PlannedRequest, bytes: Uint8Array = new Uint8Array()): Status {
    const { target } = this;
    const force = fua && target.capabilities.fua;
    switch (command) {
      case "read":
        return target.checkRead(offset, length) || target.read(bytes, offset);
      case "write":
        return target.checkWrite(offset, length, force) || target.write(bytes, offset, force);
      case "trim":
        return target.trim(offset, length, force);
      case "zero":
        return target.writeZeroes(offset, length, force, false);
      case "flush":
        return target.flush();
    }
  }

  #ended(request: ReplayedRequest, status: number): void {
    const { planned } = request;
    const result = this.#resultOf(planned.command);
    result.requests += 1;
    if (planned.failed) result.errorsThen += 1;
    else if (!Number.isNaN(planned.took)) result.before.add(planned.took);
    if (status === 0) result.now.add((this.options.clock.now() - request.arrived) * 1000);
    else result.errors += 1;
    this.#inFlight -= 1;
    this.#order.remove(request);
    this.#answered?.();
  }

  #resultOf(command: CommandName): CommandResult {
    const found = this.#results.get(command);
    if (found !== undefined) return found;
    const made = {
      command,
      requests: 0,
      errors: 0,
      errorsThen: 0,
      now: new Histogram(),
      before: new Histogram(),
    };
    this.#results.set(command, made);
    return made;
  }
}

class ReplayedRequest implements Ranged {
  readonly offset: number;
  readonly length: number;
  readonly changes: boolean;
  readonly place = new OrderPlace();
  /** When it was begun, or began to wait for another one that touches the same bytes. */
  arrived = 0;
  /** Nothing looks at it: see OrderWatcher. */
  readonly kind = OTHER;

  constructor(
    readonly planned: PlannedRequest,
    readonly proceed: () => void,
  ) {
    this.offset = planned.offset;
    this.length = planned.length;
    this.changes = planned.command !== "read";
  }
}
