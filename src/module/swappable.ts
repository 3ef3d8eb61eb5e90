/** A device that can be exchanged for another one while it is in use. */
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  type Extent,
  type WriteOptions,
  type WriteZeroesOptions,
} from "../device.ts";
import { messageOf, UserError } from "../errors.ts";
import { adopt } from "../values/promise.ts";
import { withinLimit } from "./time-limit.ts";

type Done = void | Promise<void>;
type Extents = readonly Extent[];

/** How long the requests under way may take to settle before a swap is given up, in milliseconds. */
const SWAP_LIMIT_MS = 30_000;

/** What the peer has been told and cannot be told again. */
const METHODS = ["write", "flush", "trim", "writeZeroes", "extents"] as const;

/**
 * Passes every request on to the device that is there at the moment. While one is exchanged for another, requests
 * wait. It has the methods of the first device; every later one must have the same. Its memory, if it is one, is not
 * shown: what goes through a window is not passed on.
 */
export class SwappableDevice implements BlockDevice {
  readonly size: number;
  readonly blockSize: number;
  readonly rotational: boolean;
  readonly fua?: "native";
  readonly write?: (source: Uint8Array, offset: number, options: WriteOptions) => Done;
  readonly flush?: () => Done;
  readonly trim?: (offset: number, length: number, options: WriteOptions) => Done;
  readonly writeZeroes?: (offset: number, length: number, options: WriteZeroesOptions) => Done;

  readonly extents?: (offset: number, length: number) => Extents | Promise<Extents>;

  #current: BlockDevice;
  /** Requests that have returned a promise which has not settled. */
  #underWay = 0;
  /** Resolved when the last of them has settled. Only there while a swap waits for it. */
  #idle: (() => void) | undefined;
  /** Resolved when a swap is over. Only there while one is under way. */
  #gate: Promise<void> | undefined;

  constructor(first: BlockDevice) {
    this.#current = first;
    this.size = first.size;
    this.blockSize = first.blockSize ?? DEFAULT_BLOCK_SIZE;
    this.rotational = first.rotational === true;
    if (first.fua !== undefined) this.fua = first.fua;
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
    await adopt(this.#current.prepare?.());
  }

  /** Closes the device that is there now. */
  async close(): Promise<void> {
    await this.#gate;
    await adopt(this.#current.close?.());
  }

  /** Whether requests go to this device. */
  uses(device: BlockDevice): boolean {
    return this.#current === device;
  }

  /**
   * Exchanges the device between two requests: waits for those under way, flushes, lets `next` take over, and passes
   * the requests that came meanwhile on to it.
   * @returns the device that was there before. It is not used any more, and not closed.
   * @throws UserError when `next` is not like it, when it has not come to rest in time, or when its `flush`, or
   * `prepare` or `takeOver` of `next`, fails. Then nothing has changed, and `next` is not closed.
   */
  async swap(next: BlockDevice, limitMs = SWAP_LIMIT_MS): Promise<BlockDevice> {
    if (this.#gate !== undefined) throw new Error("a swap is under way");
    this.#checkLikeness(next);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gate = promise;
    const previous = this.#current;
    try {
      await withinLimit(this.#rest(), limitMs, "a request to the device before");
      await step("flush of the device before", () => previous.flush?.(), limitMs);
      await step("prepare", () => next.prepare?.(), limitMs);
      await step("takeOver", () => next.takeOver?.(previous), limitMs);
      this.#current = next;
      return previous;
    } finally {
      this.#gate = undefined;
      this.#idle = undefined;
      resolve();
    }
  }

  #write(source: Uint8Array, offset: number, options: WriteOptions): Done {
    const { fua } = options;
    return this.#pass((device) => device.write?.(source, offset, { fua }));
  }

  #flush(): Done {
    return this.#pass((device) => device.flush?.());
  }

  #trim(offset: number, length: number, options: WriteOptions): Done {
    const { fua } = options;
    return this.#pass((device) => device.trim?.(offset, length, { fua }));
  }

  #writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Done {
    const { fua, mayTrim } = options;
    return this.#pass((device) => device.writeZeroes?.(offset, length, { fua, mayTrim }));
  }

  #extents(offset: number, length: number): Extents | Promise<Extents> {
    return this.#pass((device) => device.extents?.(offset, length) ?? []);
  }

  #pass<Result>(request: (device: BlockDevice) => Result | Promise<Result>): Result | Promise<Result> {
    // Those that wait go on in the order in which they came.
    if (this.#gate !== undefined) return this.#gate.then(() => this.#pass(request));
    const done = adopt(request(this.#current));
    if (!(done instanceof Promise)) return done;
    this.#underWay += 1;
    return done.finally(() => {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#idle?.();
    });
  }

  /** Until no request is under way. */
  #rest(): Promise<void> {
    if (this.#underWay === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle = resolve;
    return promise;
  }

  #checkLikeness(next: BlockDevice): void {
    mustEqual("size", this.size, next.size);
    mustEqual("blockSize", this.blockSize, next.blockSize ?? DEFAULT_BLOCK_SIZE);
    mustEqual("rotational", this.rotational, next.rotational === true);
    mustEqual("fua", this.fua ?? "absent", next.fua ?? "absent");
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
