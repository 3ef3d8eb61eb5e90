/** The two pumps as the fuzzer sees them: bytes in, and what they write is looked at. */
import { close } from "../../src/libc/file.ts";
import { receiveBytes, sendBytes, setSendBuffer, streamSocketPair } from "../../src/libc/socket.ts";
import type { Dispatch } from "../../src/dispatch.ts";
import { Connection } from "../../src/nbd/connection/connection.ts";
import { EventConnection } from "../../src/nbd/event/event-connection.ts";
import type { Outlet, Service } from "../../src/nbd/event/event-types.ts";
import type { Statistics } from "../../src/transport.ts";
import { checkReplies } from "./fuzz-output.ts";

/** One connection and what it has written. */
export interface FuzzedConnection {
  readonly statistics: Statistics;
  /** Whether it is of no more use: broken, or within a request. */
  readonly isStuck: boolean;
  readonly isBroken: boolean;
  receive(piece: Uint8Array): void;
  /** Nothing more comes. */
  leave(): void;
  /** Checks what has been written since the last time. */
  check(): void;
}

export class FuzzedEvent implements FuzzedConnection, Outlet {
  readonly #connection: EventConnection;
  readonly #structured: boolean;
  #written: Uint8Array[] = [];

  constructor(service: Service, structured: boolean) {
    this.#structured = structured;
    const options = { structured, allocation: structured, queueDepth: 8 };
    this.#connection = new EventConnection(this, service, options);
  }

  get statistics(): Statistics {
    return this.#connection.statistics;
  }

  get isStuck(): boolean {
    return this.isBroken || this.#connection.waitsForPeer;
  }

  get isBroken(): boolean {
    return this.#connection.fault !== "";
  }

  receive(piece: Uint8Array): void {
    this.#connection.receive(piece);
    this.#connection.drained();
  }

  leave(): void {
    this.#connection.closed();
  }

  check(): void {
    checkReplies(Buffer.concat(this.#written), this.#structured);
    this.#written = [];
  }

  write(bytes: Uint8Array): number {
    this.#written.push(bytes.slice());
    return bytes.length;
  }

  pause(): void {
    // The input is in memory already.
  }

  resume(): void {
    // As above.
  }

  end(): void {
    // There is nobody to tell.
  }
}

/** What is on its way between two checks fits, in bytes. */
const SOCKET_BYTES = 2 ** 20;
const received = new Uint8Array(new ArrayBuffer(SOCKET_BYTES));

export class FuzzedTight implements FuzzedConnection {
  readonly #connection: Connection;
  readonly #structured: boolean;
  readonly #sockets = streamSocketPair();
  #isOver = false;
  #written: Uint8Array[] = [];

  constructor(dispatch: Dispatch, structured: boolean) {
    this.#structured = structured;
    for (const fd of this.#sockets) setSendBuffer(fd, SOCKET_BYTES);
    this.#connection = new Connection(this.#sockets[0], dispatch, { structured, allocation: structured });
    this.#connection.mayWait = false;
  }

  get statistics(): Statistics {
    return this.#connection.statistics;
  }

  get isStuck(): boolean {
    return this.#isOver || this.#connection.midRequest;
  }

  get isBroken(): boolean {
    return this.#connection.fault !== "";
  }

  receive(piece: Uint8Array): void {
    if (this.#isOver || piece.length === 0) return;
    sendBytes(this.#sockets[1], piece);
    // The second finds nothing, or the rest of what did not fit a batch.
    for (let runs = 0; runs < 2 && !this.#isOver; runs += 1) this.#isOver = this.#connection.run() !== "turn";
    this.#collect();
  }

  leave(): void {
    this.#collect();
    this.#connection.close();
    for (const fd of this.#sockets) close(fd);
  }

  check(): void {
    checkReplies(Buffer.concat(this.#written), this.#structured);
    this.#written = [];
  }

  #collect(): void {
    for (;;) {
      const length = receiveBytes(this.#sockets[1], received);
      if (length <= 0) return;
      this.#written.push(received.slice(0, length));
    }
  }
}
