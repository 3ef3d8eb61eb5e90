/** A device that can be replaced by another one while it is in use. */
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  type Extent,
  type WriteOptions,
  type WriteZeroesOptions,
} from "../device.ts";
import { messageOf, UserError } from "../errors.ts";
import { adopt } from "../values/promise.ts";
import { within } from "../serving/deadline.ts";
import { withinLimit } from "./time-limit.ts";

type Done = void | Promise<void>;
type Extents = readonly Extent[];

/**
 * How long a swap waits for reads in flight, in milliseconds, while all other requests wait for the swap. A read that
 * takes longer may never be answered, and the saved module may be the remedy. Changes must be answered: the next device
 * would not know what the previous one still writes.
 */
const REST_MS = 2000;
/** The time limit for each step of a swap, in milliseconds: answering changes, flushing, taking over, closing. */
const STEP_MS = 10_000;

/** Capabilities that the peer was told once and cannot be told again. */
const METHODS = ["write", "flush", "trim", "writeZeroes", "extents"] as const;

/** When a request in flight began, by performance.now(). */
interface Asked {
  readonly since: number;
}

/** A device, and its unanswered requests. */
class Tenure {
  underWay = 0;
  /** The requests that change data. */
  readonly #changes = new Set<Asked>();
  #atRest: (() => void) | undefined;
  #allChanged: (() => void) | undefined;

  constructor(readonly device: BlockDevice) {}

  asked(changes: boolean): Asked {
    const asked = { since: performance.now() };
    this.underWay += 1;
    if (changes) this.#changes.add(asked);
    return asked;
  }

  answered(asked: Asked): void {
    this.underWay -= 1;
    if (this.#changes.delete(asked) && this.#changes.size === 0) this.#allChanged?.();
    if (this.underWay === 0) this.#atRest?.();
  }

  /** Whether changes younger than this are in flight: older ones were given up on. */
  hasChanges(giveUpMs: number): boolean {
    const now = performance.now();
    return [...this.#changes].some(({ since }) => now - since < giveUpMs);
  }

  /** Settles when no change is in flight. Only one caller may wait at a time. */
  changed(): Promise<void> {
    if (this.#changes.size === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#allChanged = resolve;
    return promise;
  }

  /** Settles when no request is in flight. Only one caller may wait at a time. */
  rest(): Promise<void> {
    if (this.underWay === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#atRest = resolve;
    return promise;
  }
}

/**
 * Passes every request on to the current device. During a swap, requests wait. It has the methods of the first device;
 * every later one must have the same. A memory window is hidden, because this would not see what goes through it.
 *
 * If a device answers a request only after it has been replaced, the request is repeated on the current device, because
 * what the former one wrote may be lost. Until then the request keeps its buffer.
 */
export class SwappableDevice implements BlockDevice {
  readonly size: number;
  readonly blockSize: number;
  readonly rotational: boolean;
  readonly fua?: "native";
  readonly identity?: string;
  readonly write?: (source: Uint8Array, offset: number, options: WriteOptions) => Done;
  readonly flush?: () => Done;
  readonly trim?: (offset: number, length: number, options: WriteOptions) => Done;
  readonly writeZeroes?: (offset: number, length: number, options: WriteZeroesOptions) => Done;

  readonly extents?: (offset: number, length: number) => Extents | Promise<Extents>;

  #current: Tenure;
  /** Replaced devices that still have requests. */
  readonly #former = new Set<Tenure>();
  /** Resolves when a swap lets requests pass again. Undefined while requests pass. */
  #gate: Promise<void> | undefined;
  /** Settles when a swap is over. Undefined without one. */
  #swap: Promise<unknown> | undefined;
  readonly #closing = Promise.withResolvers<void>();
  #isClosing = false;
  readonly #report: (line: string) => void;
  readonly #giveUpMs: number;

  /**
   * @param report gets a line for each replaced device that could not be closed.
   * @param giveUpMs milliseconds after which a request was answered with an error in place of the device.
   */
  constructor(
    first: BlockDevice,
    report: (line: string) => void = () => undefined,
    giveUpMs = Number.POSITIVE_INFINITY,
  ) {
    this.#current = new Tenure(first);
    this.#report = report;
    this.#giveUpMs = giveUpMs;
    this.size = first.size;
    this.blockSize = first.blockSize ?? DEFAULT_BLOCK_SIZE;
    this.rotational = first.rotational === true;
    if (first.fua !== undefined) this.fua = first.fua;
    if (first.identity !== undefined) this.identity = first.identity;
    if (first.write !== undefined) this.write = this.#write;
    if (first.flush !== undefined) this.flush = this.#flush;
    if (first.trim !== undefined) this.trim = this.#trim;
    if (first.writeZeroes !== undefined) this.writeZeroes = this.#writeZeroes;
    if (first.extents !== undefined) this.extents = this.#extents;
  }

  read(target: Uint8Array, offset: number): Done {
    return this.#pass((device) => device.read(target, offset));
  }

  /** Prepares the first device. */
  async prepare(): Promise<void> {
    await adopt(this.#current.device.prepare?.());
  }

  /** Closes the current device, and former ones that still have requests. No other device can take over afterwards. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#closing.resolve();
    await this.#swap?.catch(() => undefined);
    try {
      await adopt(this.#current.device.close?.());
    } finally {
      await Promise.all([...this.#former].map((tenure) => this.#closeFormer(tenure)));
    }
  }

  /** Whether it is closed, or closing. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Whether requests go to this device. */
  uses(device: BlockDevice): boolean {
    return this.#current.device === device;
  }

  /**
   * Swaps the device between two requests: flushes, waits for requests in flight, flushes what they have written, lets
   * `next` take over, and passes the requests that came meanwhile on to it. The previous device is closed once it has
   * answered all its requests.
   * @returns how many requests it did not answer in time.
   * @throws UserError if `next` differs in shape, if this is being closed, if a change is not answered in time, or if
   * `flush`, or `prepare` or `takeOver` of `next`, fails. Then nothing has changed, and `next` is not closed.
   */
  async swap(next: BlockDevice, { restMs = REST_MS, stepMs = STEP_MS } = {}): Promise<number> {
    if (this.#swap !== undefined) throw new Error("a swap is under way");
    this.#checkLikeness(next);
    // A module may well return the same device each time.
    if (this.uses(next)) return 0;
    const swap = this.#exchange(next, restMs, stepMs);
    this.#swap = swap;
    try {
      return await swap;
    } finally {
      this.#swap = undefined;
    }
  }

  async #exchange(next: BlockDevice, restMs: number, stepMs: number): Promise<number> {
    const previous = this.#current;
    const flush = (): Promise<void> =>
      step("flush of the device before", () => previous.device.flush?.(), stepMs);
    this.#mustBeOpen();
    // The long flush comes first, while requests still pass.
    await flush();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gate = promise;
    try {
      await within(Promise.race([previous.rest(), this.#closing.promise]), restMs);
      this.#mustBeOpen();
      if (previous.hasChanges(this.#giveUpMs))
        await within(Promise.race([previous.changed(), this.#closing.promise]), stepMs);
      this.#mustBeOpen();
      if (previous.hasChanges(this.#giveUpMs))
        throw new UserError(
          `a change under way is not done after ${stepMs / 1000} s: see what it waits for, or give --request-timeout`,
        );
      await flush();
      await step("prepare", () => next.prepare?.(), stepMs);
      await step("takeOver", () => next.takeOver?.(previous.device), stepMs);
      this.#current = new Tenure(next);
      this.#former.add(previous);
    } finally {
      this.#gate = undefined;
      resolve();
    }
    const { underWay } = previous;
    const closed = previous.rest().then(() => this.#closeFormer(previous, stepMs));
    if (underWay === 0) await closed;
    return underWay;
  }

  /** @throws UserError */
  #mustBeOpen(): void {
    if (this.#isClosing) throw new UserError("the device is being closed");
  }

  /** Closes a former device, only once however often it is called. */
  async #closeFormer(tenure: Tenure, limitMs = STEP_MS): Promise<void> {
    if (!this.#former.delete(tenure)) return;
    try {
      await withinLimit(tenure.device.close?.(), limitMs, "its close");
    } catch (error) {
      this.#report(`a device that is not used any more could not be closed: ${messageOf(error)}`);
    }
  }

  #write(source: Uint8Array, offset: number, options: WriteOptions): Done {
    const { fua } = options;
    return this.#pass((device) => device.write?.(source, offset, { fua }), true);
  }

  #flush(): Done {
    return this.#pass((device) => device.flush?.());
  }

  #trim(offset: number, length: number, options: WriteOptions): Done {
    const { fua } = options;
    return this.#pass((device) => device.trim?.(offset, length, { fua }), true);
  }

  #writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Done {
    const { fua, mayTrim } = options;
    return this.#pass((device) => device.writeZeroes?.(offset, length, { fua, mayTrim }), true);
  }

  #extents(offset: number, length: number): Extents | Promise<Extents> {
    return this.#pass((device) => device.extents?.(offset, length) ?? []);
  }

  #pass<Result>(
    request: (device: BlockDevice) => Result | Promise<Result>,
    changes = false,
  ): Result | Promise<Result> {
    // Waiting requests continue in the order in which they came.
    if (this.#gate !== undefined) return this.#gate.then(() => this.#pass(request, changes));
    const tenure = this.#current;
    const done = adopt(request(tenure.device));
    if (!(done instanceof Promise)) return done;
    return this.#answerOf(tenure, done, request, changes);
  }

  async #answerOf<Result>(
    tenure: Tenure,
    done: Promise<Result>,
    request: (device: BlockDevice) => Result | Promise<Result>,
    changes: boolean,
  ): Promise<Result> {
    const asked = tenure.asked(changes);
    try {
      const result = await done;
      if (tenure === this.#current || this.#isClosing) return result;
    } catch (error) {
      if (tenure === this.#current || this.#isClosing) throw error;
    } finally {
      tenure.answered(asked);
    }
    return this.#pass(request, changes);
  }

  #checkLikeness(next: BlockDevice): void {
    mustEqual("size", this.size, next.size);
    mustEqual("blockSize", this.blockSize, next.blockSize ?? DEFAULT_BLOCK_SIZE);
    mustEqual("rotational", this.rotational, next.rotational === true);
    mustEqual("fua", this.fua ?? "absent", next.fua ?? "absent");
    mustEqual("identity", this.identity ?? "absent", next.identity ?? "absent");
    for (const name of METHODS) mustEqual(name, presence(this[name]), presence(next[name]));
  }
}

/** @throws UserError that names the method, whatever it throws. */
async function step(what: string, call: () => Done, limitMs: number): Promise<void> {
  try {
    await withinLimit(adopt(call()), limitMs, what);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${what} failed: ${messageOf(error)}`, { cause: error });
  }
}

/** @throws UserError */
function mustEqual(what: string, was: unknown, is: unknown): void {
  if (was === is) return;
  throw new UserError(
    `${what} was ${was} and is ${is} now, which cannot change in use: restart tsbuse for that`,
  );
}

function presence(method: unknown): string {
  return method === undefined ? "absent" : "there";
}
