/**
 * The other end of a Connection, on the same thread: a test sends bytes and sees what comes back. Neither end ever
 * waits: the connection's receive says EAGAIN at once when there is nothing, as it does after its time-out, and what
 * a test has on its way must fit the socket's buffers.
 */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch, type DispatchOptions } from "../../src/dispatch.ts";
import { negativeErrno, unwrap } from "../../src/libc/errno.ts";
import { close } from "../../src/libc/file.ts";
import { ioctlBuffer } from "../../src/libc/ioctl.ts";
import { libc } from "../../src/libc/library.ts";
import { setReceiveTimeout, setSendBuffer, shutdown, streamSocketPair } from "../../src/libc/socket.ts";
import { Connection } from "../../src/nbd/connection/connection.ts";
import type { Outcome } from "../../src/nbd/connection/types.ts";
import type { Trace } from "../../src/transport.ts";
import { concatenate, decodeReplies, encodeAll, type Reply, type Request } from "./golden.ts";

export interface PeerOptions extends DispatchOptions {
  readonly trace?: Trace;
  readonly structured?: boolean;
  readonly allocation?: boolean;
  /** What fits the socket in each direction, in bytes; beyond the system's limit with CAP_NET_ADMIN only. */
  readonly bufferBytes?: number;
}

/** <sys/socket.h> and <asm-generic/ioctls.h>. */
const MSG_DONTWAIT = 0x40;
const SHUT_WR = 1;
const FIONBIO = 0x5421;
const EAGAIN = 11;

const SMALLEST_TIMEOUT_MS = 0.001;
const BUFFER_BYTES = 2 ** 20;
/** A run that took less than this ended because there was nothing more to do, not because its time was up. */
const TURN_MS = 50;

/** From now on calls on the socket return -EAGAIN where they would wait. */
export function setNonBlocking(fd: number): void {
  unwrap(ioctlBuffer(fd, FIONBIO, Int32Array.of(1)), "FIONBIO");
}

export class Peer {
  readonly connection: Connection;
  readonly lines: string[] = [];
  /** How the last run ended. */
  outcome: Outcome = "turn";

  readonly #device: BlockDevice;
  readonly #ours: number;
  readonly #theirs: number;
  readonly #buffer = new Uint8Array(new ArrayBuffer(BUFFER_BYTES));
  #received: Uint8Array[] = [];

  /** The device is closed with the peer. */
  constructor(device: BlockDevice, options: PeerOptions = {}) {
    const log = (line: string): unknown => this.lines.push(line);
    const dispatch = new Dispatch(device, { log, ...options });
    this.#device = device;
    [this.#ours, this.#theirs] = streamSocketPair();
    for (const fd of [this.#ours, this.#theirs]) setSendBuffer(fd, options.bufferBytes ?? BUFFER_BYTES);
    unwrap(setReceiveTimeout(this.#ours, SMALLEST_TIMEOUT_MS), "SO_RCVTIMEO");
    setNonBlocking(this.#ours);
    this.connection = new Connection(this.#ours, dispatch, options);
  }

  /** Sends all of `bytes` with one call. @throws Error when they do not fit. */
  send(bytes: Uint8Array): void {
    const sent = this.#sendSome(bytes);
    if (sent !== bytes.length) throw new Error(`${sent} of ${bytes.length} bytes fit the socket`);
  }

  /** Sends any number of bytes, with runs of the connection in between that take them out of the socket. */
  pour(bytes: Uint8Array): Outcome {
    let at = 0;
    while (at < bytes.length && this.outcome === "turn") {
      at += this.#sendSome(bytes.subarray(at));
      this.run();
    }
    return this.outcome;
  }

  /** Lets the connection do all that there is to do, and takes the bytes that it sends. */
  run(): Outcome {
    let took = TURN_MS;
    while (took >= TURN_MS && this.outcome === "turn") {
      const started = performance.now();
      this.outcome = this.connection.run();
      took = performance.now() - started;
      this.#collect();
    }
    return this.outcome;
  }

  /** What has come back since it was last asked for. */
  received(): Uint8Array {
    const bytes = concatenate(this.#received);
    this.#received = [];
    return bytes;
  }

  /** The requests in one send, and all their replies. */
  exchange(requests: readonly Request[]): Reply[] {
    this.send(encodeAll(requests));
    this.run();
    return decodeReplies(this.received(), requests);
  }

  /** Ends the stream of requests; replies still come in. */
  endRequests(): void {
    unwrap(negativeErrno(libc.shutdown(this.#theirs, SHUT_WR)), "shutdown");
  }

  /** Ends both streams. */
  hangUp(): void {
    shutdown(this.#theirs);
  }

  [Symbol.dispose](): void {
    close(this.#theirs);
    close(this.#ours);
    this.connection.close();
    this.#device.close?.();
  }

  #sendSome(bytes: Uint8Array): number {
    const sent = negativeErrno(libc.sendto(this.#theirs, bytes, bytes.length, MSG_DONTWAIT, null, 0));
    return sent === -EAGAIN ? 0 : unwrap(sent, "send");
  }

  #collect(): void {
    for (;;) {
      const got = negativeErrno(libc.recv(this.#theirs, this.#buffer, BUFFER_BYTES, MSG_DONTWAIT));
      if (got === -EAGAIN || got === 0) return;
      this.#received.push(this.#buffer.slice(0, unwrap(got, "recv")));
    }
  }
}
