/**
 * Malformed input for the handshake and the request parser, in this process: valid bytes with faults in them, in pieces
 * of any size, for devices that answer at once or with promises. Whatever the input, the server must not throw, call
 * the device out of range, send anything but whole replies, leak memory, or take long.
 */
import assert from "node:assert";
import type { BlockDevice, Extent } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { Service } from "../../src/nbd/connection/service.ts";
import { exportInfo } from "../../src/nbd/server/export.ts";
import { Handshake } from "../../src/nbd/server/handshake.ts";
import { FuzzRandom, mutate, randomHandshake, randomRequest } from "./fuzz-input.ts";
import { FuzzedConnection } from "./fuzz-connections.ts";
import { checkOptionReplies } from "./fuzz-output.ts";

export interface FuzzCounts {
  inputs: number;
  /** Handshakes by verdict; `open`: it waits for more input. */
  readonly verdicts: Record<"open" | "transmission" | "abort" | "drop", number>;
  /** Answered requests, those answered with an error, and broken connections. */
  requests: number;
  errors: number;
  broken: number;
}

const DEVICE_BYTES = 64 * 1024;
const POOL_BYTES = 64 * 2 ** 20;
/** Turns of the event loop in which all postponed work ends; a chain of requests takes one turn for each. */
const TURNS_MAX = 10_000;
/** Inputs between two turns of the event loop. */
const TURN_INPUTS = 32;
/** The largest total of replies to one input, in bytes: a few of the longest lists and reads. */
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
    // Nothing to do: it exists so that the server offers FUA.
  }
  trim(offset: number, length: number): void {
    this.check(offset, length);
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

/** The same device, which answers some requests later: after a microtask, or after a turn of the event loop. */
function promising(device: StrictDevice, random: FuzzRandom): BlockDevice {
  const later = (work: () => void): void | Promise<void> => {
    work();
    if (random.oneIn(3)) return;
    return random.oneIn(2) ? Promise.resolve() : eventLoopTurn();
  };
  return {
    size: device.size,
    read: (target, offset) => later(() => device.read(target, offset)),
    write: (source, offset) => later(() => device.write(source, offset)),
    flush: () => later(() => device.flush()),
    trim: (offset, length) => later(() => device.trim(offset, length)),
    writeZeroes: (offset, length) => later(() => device.writeZeroes(offset, length)),
    extents: async (offset, length) => device.extents(offset, length),
  };
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
  /** One with a device that answers at once, one with a device that often does not. */
  readonly #services: readonly Service[];
  readonly #failures: string[] = [];
  #connection: FuzzedConnection;
  /** Connections that have ended and are not checked yet. */
  readonly #left: FuzzedConnection[] = [];

  constructor(seed: number) {
    this.#random = new FuzzRandom(seed);
    // The server logs what the device throws: a failed assertion there is a fault of the parser.
    const log = (line: string): unknown => this.#failures.push(line);
    const devices = [new StrictDevice(), promising(new StrictDevice(), this.#random)];
    this.#services = devices.map(
      (device) => new Service(new Dispatch(device, { log }), { queueDepth: 8 }, POOL_BYTES),
    );
    this.#connection = this.#connect();
  }

  /** @throws Error at the first input that finds a fault, with its number. */
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
    const { dispatch } = this.#random.pick(this.#services);
    const handshake = new Handshake(exportInfo(dispatch, { exportName: "disk", description: "text" }));
    const input = mutate(this.#random, randomHandshake(this.#random));
    let kind: keyof FuzzCounts["verdicts"] = "open";
    let replied = 0;
    for (const piece of this.#random.pieces(input)) {
      const step = handshake.push(piece);
      replied += step.reply.length;
      // The answer to EXPORT_NAME is no option reply.
      if (step.verdict?.kind !== "transmission") checkOptionReplies(step.reply);
      if (step.verdict === undefined) continue;
      kind = step.verdict.kind;
      break;
    }
    assert(replied < REPLY_BYTES_MAX, `${replied} bytes of replies`);
    this.counts.verdicts[kind] += 1;
  }

  /** Replaces a connection that is broken or in the middle of a request: it would not see a new request. */
  #requests(): void {
    const input = mutate(this.#random, randomRequest(this.#random, DEVICE_BYTES));
    const connection = this.#connection;
    for (const piece of this.#random.pieces(input)) connection.receive(piece);
    if (connection.isStuck || this.#random.oneIn(64)) this.#leave();
  }

  #leave(): void {
    this.#left.push(this.#connection);
    this.#connection = this.#connect();
  }

  #connect(): FuzzedConnection {
    return new FuzzedConnection(this.#random.pick(this.#services), this.#random.oneIn(2));
  }

  /** Lets everything settle, and checks the result. */
  async #turn(): Promise<void> {
    const open = [...this.#left, this.#connection];
    for (let turns = 0; turns < TURNS_MAX && open.some(({ isDone }) => !isDone); turns += 1) {
      await eventLoopTurn();
      for (const connection of open) connection.run();
    }
    for (const left of this.#left.splice(0)) {
      left.leave();
      const { requests, errors } = left.statistics;
      this.counts.requests += requests;
      this.counts.errors += errors;
      if (left.isBroken) this.counts.broken += 1;
    }
    // A connection in the middle of a write holds a buffer.
    if (this.#connection.isStuck) return;
    for (const { pool, order } of this.#services) {
      assert.equal(pool.usedBytes, 0, "buffers were not given back");
      assert.equal(order.size, 0, "requests were left in the order");
    }
    assert.deepEqual(this.#failures, []);
  }
}

function eventLoopTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}
