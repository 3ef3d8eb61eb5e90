/**
 * Malformed input for the handshake and the request parsers of both servers, in this process: valid bytes with faults
 * in them, in pieces of any size. Whatever comes, nothing may throw, reach the device out of range, answer with
 * anything but whole replies, keep memory, or take long.
 */
import assert from "node:assert";
import type { BlockDevice, Extent } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { BufferPool } from "../../src/nbd/event/buffer-pool.ts";
import type { Service } from "../../src/nbd/event/event-types.ts";
import { exportInfo } from "../../src/nbd/server/export.ts";
import { Handshake } from "../../src/nbd/server/handshake.ts";
import { RangeOrder } from "../../src/serving/range-order.ts";
import { FuzzRandom, mutate, randomHandshake, randomRequest } from "./fuzz-input.ts";
import { type FuzzedConnection, FuzzedEvent, FuzzedTight } from "./fuzz-connections.ts";
import { checkOptionReplies } from "./fuzz-output.ts";

export interface FuzzCounts {
  inputs: number;
  /** Handshakes by their verdict; `open` is one that waits for more. */
  readonly verdicts: Record<"open" | "transmission" | "abort" | "drop", number>;
  /** Requests that were answered, and of these with an error; connections that were broken. */
  requests: number;
  errors: number;
  broken: number;
}

const DEVICE_BYTES = 64 * 1024;
/** How often the event loop gets its turn, in inputs. */
const TURN_INPUTS = 32;
/** The most that the replies to one input can have, in bytes: some of the longest lists and reads. */
const REPLY_BYTES_MAX = 2 ** 20;

/** A device that holds its caller to the contract. */
class StrictDevice implements BlockDevice {
  readonly size = DEVICE_BYTES;
  read(target: Uint8Array, offset: number): void {
    this.check(offset, target.length);
  }
  write(source: Uint8Array, offset: number): void {
    this.check(offset, source.length);
  }
  flush(): void {
    // Nothing to do, but FUA comes with it.
  }
  trim(offset: number, length: number): Promise<void> | undefined {
    this.check(offset, length);
    return Promise.resolve();
  }
  writeZeroes(offset: number, length: number): void {
    this.check(offset, length);
  }
  extents(offset: number, length: number): Extent[] {
    this.check(offset, length);
    return [{ length, hole: true, zero: true }];
  }
  check(offset: number, length: number): void {
    const whole = offset % 512 === 0 && length % 512 === 0 && length > 0;
    assert(whole && offset >= 0 && offset + length <= DEVICE_BYTES, `offset ${offset} length ${length}`);
  }
}

/** The same for a pump that cannot wait. */
class PromptDevice extends StrictDevice {
  override trim(offset: number, length: number): undefined {
    this.check(offset, length);
  }
}

export class Fuzzer {
  readonly counts: FuzzCounts = {
    inputs: 0,
    verdicts: { open: 0, transmission: 0, abort: 0, drop: 0 },
    requests: 0,
    errors: 0,
    broken: 0,
  };
  readonly #random: FuzzRandom;
  readonly #service: Service;
  /** That of the tight pump's connections. */
  readonly #prompt: Dispatch;
  readonly #failures: string[] = [];
  #connection: FuzzedConnection;
  /** Connections that have ended, and have not been looked at. */
  readonly #left: FuzzedConnection[] = [];

  constructor(seed: number) {
    this.#random = new FuzzRandom(seed);
    // What the device throws is logged: an assertion there is a mistake of the parser.
    const log = (line: string): unknown => this.#failures.push(line);
    const dispatch = new Dispatch(new StrictDevice(), { log });
    this.#prompt = new Dispatch(new PromptDevice(), { log });
    this.#service = { dispatch, order: new RangeOrder(), pool: new BufferPool(64 * 2 ** 20) };
    this.#connection = new FuzzedEvent(this.#service, false);
  }

  /** @throws Error for the first input that does what it must not; its number is in the message. */
  async run(inputs: number): Promise<void> {
    for (let left = inputs; left > 0; left -= 1) {
      this.counts.inputs += 1;
      try {
        if (this.#random.oneIn(2)) this.#handshake();
        else this.#requests();
        if (this.counts.inputs % TURN_INPUTS === 0) await this.#turn();
      } catch (error) {
        throw new Error(`input ${this.counts.inputs}`, { cause: error });
      }
    }
    this.#leave();
    await this.#turn();
  }

  #handshake(): void {
    const { dispatch } = this.#service;
    const handshake = new Handshake(exportInfo(dispatch, { exportName: "disk", description: "text" }));
    const input = mutate(this.#random, randomHandshake(this.#random));
    let kind: keyof FuzzCounts["verdicts"] = "open";
    let replied = 0;
    for (const piece of this.#random.pieces(input)) {
      const step = handshake.push(piece);
      replied += step.reply.length;
      // EXPORT_NAME is answered with something that is no option reply.
      if (step.verdict?.kind !== "transmission") checkOptionReplies(step.reply);
      if (step.verdict === undefined) continue;
      kind = step.verdict.kind;
      break;
    }
    assert(replied < REPLY_BYTES_MAX, `${replied} bytes of replies`);
    this.counts.verdicts[kind] += 1;
  }

  /** A connection that is broken, or stands within a request, is left for a new one: it would hear no more. */
  #requests(): void {
    const input = mutate(this.#random, randomRequest(this.#random, DEVICE_BYTES));
    const connection = this.#connection;
    for (const piece of this.#random.pieces(input)) connection.receive(piece);
    if (connection.isStuck || this.#random.oneIn(64)) this.#leave();
  }

  #leave(): void {
    this.#connection.leave();
    this.#left.push(this.#connection);
    const structured = this.#random.oneIn(2);
    // A tight one has sockets and memory of its own, which take longer than its requests.
    this.#connection = this.#random.oneIn(16)
      ? new FuzzedTight(this.#prompt, structured)
      : new FuzzedEvent(this.#service, structured);
  }

  /** Lets everything settle, and checks what it came to. */
  async #turn(): Promise<void> {
    await eventLoopTurn();
    await eventLoopTurn();
    for (const left of this.#left.splice(0)) {
      left.check();
      const { requests, errors } = left.statistics;
      this.counts.requests += requests;
      this.counts.errors += errors;
      if (left.isBroken) this.counts.broken += 1;
    }
    assert.equal(this.#service.pool.usedBytes, 0, "buffers were not given back");
    assert.equal(this.#service.order.size, 0, "requests were left in the order");
    assert.deepEqual(this.#failures, []);
  }
}

function eventLoopTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}
