/**
 * The other end of a connection, on the same thread: a test sends bytes and checks what comes back. Neither end ever
 * waits in the kernel, so everything in flight must fit the socket's buffers. An asynchronous device gets turns of the
 * event loop between two runs.
 */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch, type DispatchOptions } from "../../src/dispatch.ts";
import { negativeErrno, unwrap } from "../../src/libc/errno.ts";
import { close } from "../../src/libc/file.ts";
import { ioctlBuffer } from "../../src/libc/ioctl.ts";
import { libc } from "../../src/libc/library.ts";
import { PollTable } from "../../src/libc/poll.ts";
import { setSendBuffer, shutdown, streamSocketPair } from "../../src/libc/socket.ts";
import type { TraceWriter } from "../../src/queues/trace-ring.ts";
import type { Connection } from "../../src/nbd/connection/connection.ts";
import { type RequestOptions, Service } from "../../src/nbd/connection/service.ts";
import { type Ending, Session } from "../../src/nbd/connection/session.ts";
import { turns } from "./async-devices.ts";
import { concatenate, decodeReplies, encodeAll, type Reply, type Request } from "./golden.ts";

export interface PeerOptions extends DispatchOptions, RequestOptions {
  /** The service of another peer, for a second connection to its device. */
  readonly service?: Service;
  /** The memory for payloads, in bytes. */
  readonly poolBytes?: number;
  readonly name?: string;
  /** Gets the answered requests. */
  readonly ring?: TraceWriter;
  readonly structured?: boolean;
  readonly allocation?: boolean;
  /** The size of the socket's buffers, in bytes; exceeding the system's limit needs CAP_NET_ADMIN. */
  readonly bufferBytes?: number;
}

/** <sys/socket.h> and <asm-generic/ioctls.h>. */
const MSG_DONTWAIT = 0x40;
const SHUT_WR = 1;
const FIONBIO = 0x5421;
const EAGAIN = 11;

const POOL_BYTES = 64 * 2 ** 20;
const BUFFER_BYTES = 2 ** 20;
/** Longer than any run that has nothing more to do. */
const STEP_MS = 50;

const LIMIT_MS = 10_000;

/** From now on calls on the socket return -EAGAIN instead of waiting. */
export function setNonBlocking(fd: number): void {
  unwrap(ioctlBuffer(fd, FIONBIO, Int32Array.of(1)), "FIONBIO");
}

export class Peer {
  readonly session: Session;
  readonly service: Service;
  readonly lines: string[] = [];
  /** Reads replies only in {@link take}. */
  isDeaf = false;

  readonly #device: BlockDevice;
  readonly #ours: number;
  readonly #theirs: number;
  readonly #buffer = new Uint8Array(new ArrayBuffer(BUFFER_BYTES));
  readonly #table = new PollTable(1);
  #received: Uint8Array[] = [];
  /** How many requests have had their replies checked. */
  #seen = 0;

  /** Closing the peer closes the device. */
  constructor(device: BlockDevice, options: PeerOptions = {}) {
    const log = (line: string): unknown => this.lines.push(line);
    const dispatch = new Dispatch(device, { log, ...options });
    this.#device = device;
    [this.#ours, this.#theirs] = streamSocketPair();
    for (const fd of [this.#ours, this.#theirs]) setSendBuffer(fd, options.bufferBytes ?? BUFFER_BYTES);
    this.service =
      options.service ?? new Service(dispatch, { log, ...options }, options.poolBytes ?? POOL_BYTES);
    this.session = new Session(this.#ours, this.service, options, () => undefined);
  }

  get connection(): Connection {
    return this.session.connection;
  }

  /** How the connection ended, or "turn" if it has not. */
  get outcome(): Ending | "turn" {
    return this.session.ending ?? "turn";
  }

  /** Sends all of `bytes` with one call. @throws Error if they do not fit. */
  send(bytes: Uint8Array): void {
    const sent = this.#sendSome(bytes);
    if (sent !== bytes.length) throw new Error(`${sent} of ${bytes.length} bytes fit the socket`);
  }

  /** Sends any number of bytes, and runs the connection in between to empty the socket. */
  pour(bytes: Uint8Array): Ending | "turn" {
    let at = 0;
    while (at < bytes.length && this.outcome === "turn") {
      at += this.#sendSome(bytes.subarray(at));
      this.run();
    }
    return this.outcome;
  }

  /** Lets the connection do everything it can, and reads the bytes that it sends. */
  run(): Ending | "turn" {
    do {
      this.session.step(STEP_MS);
      if (!this.isDeaf) while (this.take(BUFFER_BYTES) > 0);
    } while (this.session.isReady || this.#hasNews());
    return this.outcome;
  }

  /** The bytes received since the last call. */
  received(): Uint8Array {
    const bytes = concatenate(this.#received);
    this.#received = [];
    this.#seen = this.connection.requests;
    return bytes;
  }

  /** Reads up to this many of the bytes that have arrived. Returns how many it read. */
  take(bytes: number): number {
    const got = negativeErrno(libc.recv(this.#theirs, this.#buffer, bytes, MSG_DONTWAIT));
    if (got === -EAGAIN || got === 0) return 0;
    this.#received.push(this.#buffer.slice(0, unwrap(got, "recv")));
    return got;
  }

  /** Sends the requests at once. Returns the replies that are there immediately. */
  exchange(requests: readonly Request[]): Reply[] {
    this.send(encodeAll(requests));
    this.run();
    return decodeReplies(this.received(), requests);
  }

  /** All replies to `requests`, in order of arrival: runs until they are there, however long it takes. */
  async replies(requests: readonly Request[]): Promise<Reply[]> {
    const wanted = this.#seen + requests.length;
    await this.until(`${requests.length} replies`, () => {
      return this.connection.requests >= wanted && !this.connection.hasReplies;
    });
    return decodeReplies(this.received(), requests);
  }

  /** Runs until `condition` holds, with turns of the event loop in between. @throws Error naming `what`. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const deadline = performance.now() + LIMIT_MS;
    for (this.run(); !condition(); this.run()) {
      if (performance.now() > deadline) throw new Error(`not within ${LIMIT_MS} ms: ${what}`);
      await turns(1);
    }
  }

  /** Ends the stream of requests; replies still arrive. */
  endRequests(): void {
    unwrap(negativeErrno(libc.shutdown(this.#theirs, SHUT_WR)), "shutdown");
  }

  /** Ends both streams. */
  hangUp(): void {
    shutdown(this.#theirs);
  }

  [Symbol.dispose](): void {
    this.session.leave();
    close(this.#theirs);
    close(this.#ours);
    this.connection.close();
    this.service.close();
    this.#device.close?.();
  }

  #sendSome(bytes: Uint8Array): number {
    const sent = negativeErrno(libc.sendto(this.#theirs, bytes, bytes.length, MSG_DONTWAIT, null, 0));
    return sent === -EAGAIN ? 0 : unwrap(sent, "send");
  }

  /** Whether the socket has news that the connection waits for. */
  #hasNews(): boolean {
    const { events, isOver } = this.session;
    if (isOver || events === 0) return false;
    this.#table.clear();
    this.#table.push(this.#ours, events);
    return this.#table.wait(0) > 0;
  }
}
