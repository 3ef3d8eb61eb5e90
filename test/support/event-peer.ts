/** The other end of an event connection, in memory: a test sends bytes, and takes replies as slowly as it wants. */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { BufferPool } from "../../src/nbd/event/buffer-pool.ts";
import { EventConnection } from "../../src/nbd/event/event-connection.ts";
import type { EventOptions, Outlet, Service } from "../../src/nbd/event/event-types.ts";
import { RangeOrder } from "../../src/serving/range-order.ts";
import { concatenate, decodeReplies, encode, encodeAll, type Reply, type Request } from "./golden.ts";
import { until } from "./shell.ts";

export interface EventPeerOptions extends EventOptions {
  readonly service?: Service;
  readonly readOnly?: boolean;
  readonly poolBytes?: number;
}

export class EventPeer implements Outlet {
  readonly connection: EventConnection;
  readonly service: Service;
  readonly lines: string[] = [];
  /** How many bytes the socket takes before it is full. */
  room = Number.POSITIVE_INFINITY;
  isGone = false;
  paused = false;
  isEnded = false;
  /** How many times something was written. */
  writes = 0;
  #received: Uint8Array[] = [];
  /** What was sent while the connection had paused: the socket's buffer. */
  #held: Uint8Array[] = [];

  constructor(device: BlockDevice, options: EventPeerOptions = {}) {
    const log = (line: string): unknown => this.lines.push(line);
    this.service = options.service ?? {
      dispatch: new Dispatch(device, { log, readOnly: options.readOnly }),
      order: new RangeOrder(),
      pool: new BufferPool(options.poolBytes ?? 64 * 2 ** 20),
    };
    this.connection = new EventConnection(this, this.service, { log, ...options });
  }

  write(bytes: Uint8Array): number {
    if (this.isGone) return -1;
    const taken = Math.min(this.room, bytes.length);
    this.room -= taken;
    this.writes += 1;
    this.#received.push(bytes.slice(0, taken));
    return taken;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    setImmediate(() => this.#deliver());
  }

  end(): void {
    this.isEnded = true;
  }

  send(bytes: Uint8Array): void {
    this.#held.push(bytes);
    this.#deliver();
  }

  sendAll(requests: readonly Request[]): void {
    this.send(encodeAll(requests));
  }

  /** Makes room for more bytes, as a peer that reads does. */
  take(bytes: number): void {
    this.room = bytes;
    this.connection.drained();
  }

  received(): Uint8Array {
    return concatenate(this.#received);
  }

  /** Waits for as many bytes, and no more. */
  async bytes(count: number): Promise<Uint8Array> {
    await until(`${count} bytes of replies`, () => this.received().length >= count);
    return this.received();
  }

  /** All replies, in the order in which they came. They are taken off. */
  async replies(requests: readonly Request[]): Promise<Reply[]> {
    let replies: Reply[] = [];
    await until(`${requests.length} replies`, () => {
      const whole = this.received();
      try {
        replies = decodeReplies(whole, requests);
      } catch {
        // A reply that is not all there yet; what is wrong stays wrong, and is not waited for long.
        return false;
      }
      return replies.length === requests.length;
    });
    this.#received = [];
    return replies;
  }

  async exchange(...requests: Request[]): Promise<Reply[]> {
    for (const request of requests) this.send(encode(request));
    return this.replies(requests);
  }

  #deliver(): void {
    while (!this.paused) {
      const chunk = this.#held.shift();
      if (chunk === undefined) return;
      this.connection.receive(chunk);
    }
  }
}
