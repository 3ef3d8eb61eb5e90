/** Runs a sequence of operations on a new device. */
import type { BlockDevice } from "../device.ts";
import { Dispatch } from "../dispatch.ts";
import { messageOf } from "../errors.ts";
import { Caller, type Verdict } from "./caller.ts";
import { Model } from "./model.ts";
import { conflict, describe, type Operation } from "./operation.ts";

export type MakeDevice = () => BlockDevice | Promise<BlockDevice>;

export interface RunOptions {
  /** How many requests may be in flight. */
  readonly depth: number;
  /** The time limit of a request, in milliseconds. */
  readonly timeoutMs: number;
  /** The device keeps flushed data when it is closed and made anew. */
  readonly persistent: boolean;
  /** Ends by reading everything with known contents. */
  readonly sweep: boolean;
}

export interface Outcome {
  /** The operations that began, including those of the sweep. */
  readonly operations: readonly Operation[];
  /** A line for each. */
  readonly steps: readonly string[];
  /** One line; undefined if nothing is wrong. */
  readonly failure: string | undefined;
  /** The failure is that an operation exceeded its time limit. */
  readonly hung: boolean;
  /** Some method has returned a promise. */
  readonly asynchronous: boolean;
}

interface InFlight {
  readonly step: number;
  readonly operation: Operation;
  readonly settled: Promise<void>;
}

/** The longest read of the sweep, and the maximum that it reads in total, in bytes. */
const SWEEP_PIECE = 2 ** 20;
const SWEEP_MAX = 128 * 2 ** 20;
/** How many turns of the event loop a device gets to do something forbidden after it has answered. */
const TURNS = 3;

/** Never throws because of a device. `plan` gets the device's shape and returns the operations. */
export async function run(
  make: MakeDevice,
  plan: (shape: Dispatch) => readonly Operation[],
  options: RunOptions,
): Promise<Outcome> {
  const running = new Run(make, options);
  await running.all(plan);
  return running.outcome();
}

class Run {
  readonly #operations: Operation[] = [];
  readonly #steps: string[] = [];
  readonly #inFlight = new Set<InFlight>();
  #caller: Caller | undefined;
  /** Undefined while it is closed. */
  #device: BlockDevice | undefined;
  /** Dropped devices, closed only at the end, when it is too late to store anything. */
  readonly #dropped = new Set<BlockDevice>();
  #shape: Dispatch | undefined;
  #failure: string | undefined;
  #hung = false;
  #asynchronous = false;

  constructor(
    readonly make: MakeDevice,
    readonly options: RunOptions,
  ) {}

  outcome(): Outcome {
    return {
      operations: this.#operations,
      steps: this.#steps,
      failure: this.#failure,
      hung: this.#hung,
      asynchronous: this.#asynchronous,
    };
  }

  async all(plan: (shape: Dispatch) => readonly Operation[]): Promise<void> {
    await this.#open();
    if (this.#shape !== undefined) {
      for (const operation of plan(this.#shape)) {
        await this.#step(operation);
        if (this.#failure !== undefined) break;
      }
      await this.#settleAll();
      if (this.options.sweep) await this.#sweep();
    }
    await this.#inspectBuffers();
    await this.#close();
    for (const device of this.#dropped) await this.#attempt("close", () => device.close?.());
  }

  async #step(operation: Operation): Promise<void> {
    if (["wait", "reopen", "crash"].includes(operation.kind)) await this.#settleAll();
    else await this.#makeRoom(operation);
    // A request that settled meanwhile may have failed: then the sequence ends before this step.
    if (this.#failure !== undefined) return;
    const step = this.#operations.push(operation);
    const others = [...this.#inFlight].map((each) => each.step).join(", ");
    this.#steps.push(describe(operation) + (others === "" ? "" : ` (while in flight: ${others})`));
    if (operation.kind === "reopen") await this.#reopen();
    else if (operation.kind === "crash") await this.#crash();
    else if (operation.kind === "wait") await this.#inspectBuffers();
    else this.#begin(operation, step);
  }

  #begin(operation: Operation, step: number): void {
    const by = `step ${step}`;
    const named = (verdict: Verdict): Verdict =>
      verdict === undefined || verdict.startsWith("step ") ? verdict : `${by}, ${operation.kind}: ${verdict}`;
    const verdict = this.#caller?.call(operation, by);
    if (!(verdict instanceof Promise)) return this.#fail(named(verdict));
    this.#asynchronous = true;
    const settle = async (): Promise<void> => {
      const inTime = await this.#inTime(verdict);
      this.#inFlight.delete(entry);
      this.#fail(named(inTime));
    };
    const entry: InFlight = { step, operation, settled: settle() };
    this.#inFlight.add(entry);
  }

  /** Overlapping requests are never in flight together, if one of them changes something. */
  async #makeRoom(operation: Operation): Promise<void> {
    for (const other of this.#inFlight) if (conflict(operation, other.operation)) await other.settled;
    while (this.#inFlight.size >= this.options.depth) {
      await Promise.race([...this.#inFlight].map(({ settled }) => settled));
    }
  }

  async #settleAll(): Promise<void> {
    await Promise.all([...this.#inFlight].map(({ settled }) => settled));
  }

  /** Gives a device that still writes to a buffer the time to do so. */
  async #inspectBuffers(): Promise<void> {
    if (this.#asynchronous) for (let turn = 0; turn < TURNS; turn += 1) await turnOfTheLoop();
    this.#fail(this.#caller?.returned.inspect());
  }

  async #sweep(): Promise<void> {
    let bytes = 0;
    for (const { offset, length } of this.#caller?.model.known(SWEEP_PIECE) ?? []) {
      if (this.#failure !== undefined || bytes > SWEEP_MAX) break;
      await this.#step({ kind: "read", offset, length });
      bytes += length;
    }
    await this.#settleAll();
  }

  async #reopen(): Promise<void> {
    const before = this.#caller;
    const flushed = await this.#attempt("flush", () => before?.device.flush?.());
    await this.#close();
    if (flushed && this.#failure === undefined) await this.#open(before?.model);
  }

  /** Flushed data must be there; other changes may be. */
  async #crash(): Promise<void> {
    const [before, dropped] = [this.#caller, this.#device];
    if (dropped !== undefined) this.#dropped.add(dropped);
    this.#device = undefined;
    await this.#open(before?.model, async () => {
      try {
        return await this.make();
      } catch {
        // The dropped device still holds it, as it does a locked file.
        if (dropped !== undefined) this.#dropped.delete(dropped);
        await dropped?.close?.();
        return this.make();
      }
    });
    const model = this.#caller?.model;
    for (const { offset, length } of model?.uncertain(SWEEP_PIECE) ?? []) {
      if (this.#failure !== undefined) return;
      const bytes = new Uint8Array(length);
      await this.#attempt("read after the crash", () => this.#caller?.device.read(bytes, offset));
      if (this.#failure === undefined) this.#fail(model?.verifyCrash(bytes, offset));
    }
    model?.crashed();
  }

  /** @param known what the device held before, unless this is the first time. */
  async #open(known?: Model, make: MakeDevice = this.make): Promise<void> {
    await this.#attempt("making the device", async () => {
      const device = await make();
      this.#device = device;
      await device.prepare?.();
      const shape = new Dispatch(device);
      if (this.#shape !== undefined && shape.size !== this.#shape.size) {
        throw new Error(`its size is ${shape.size}, and was ${this.#shape.size} before it was closed`);
      }
      this.#shape = shape;
      const kept = this.options.persistent ? known : undefined;
      this.#caller = new Caller(device, kept ?? new Model(device.size));
    });
  }

  async #close(): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    await this.#attempt("close", () => device?.close?.());
  }

  /** Returns whether the action succeeded. */
  async #attempt(what: string, action: () => void | Promise<void>): Promise<boolean> {
    const attempt = async (): Promise<Verdict> => {
      await action();
      return undefined;
    };
    const verdict = await this.#inTime(attempt().catch(thrown));
    if (verdict !== undefined) this.#fail(`${what}: ${verdict}`);
    return verdict === undefined;
  }

  /** The verdict, or a failure if there was none in time. */
  async #inTime(verdict: Promise<Verdict>): Promise<Verdict> {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    const { timeoutMs } = this.options;
    const timer = setTimeout(() => {
      this.#hung ||= this.#failure === undefined;
      resolve(`is not done after ${timeoutMs} ms`);
    }, timeoutMs);
    const first = await Promise.race([verdict, promise]);
    clearTimeout(timer);
    return first;
  }

  #fail(verdict: Verdict): void {
    this.#failure ??= verdict;
  }
}

async function turnOfTheLoop(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function thrown(error: unknown): Verdict {
  return `failed: ${messageOf(error)}`;
}
