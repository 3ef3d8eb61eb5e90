/** A connection as the fuzzer sees it: bytes in, and what it writes is looked at. */
import { close } from "../../src/libc/file.ts";
import { receiveBytes, sendBytes, setSendBuffer, streamSocketPair } from "../../src/libc/socket.ts";
import type { Service } from "../../src/nbd/connection/service.ts";
import { Session } from "../../src/nbd/connection/session.ts";
import type { Statistics } from "../../src/transport.ts";
import { checkReplies } from "./fuzz-output.ts";

/** What is on its way between two checks fits, in bytes. */
const SOCKET_BYTES = 2 ** 20;
/** Longer than any run takes that has nothing more to do, in milliseconds. */
const STEP_MS = 50;
const received = new Uint8Array(new ArrayBuffer(SOCKET_BYTES));

export class FuzzedConnection {
  readonly #session: Session;
  readonly #structured: boolean;
  readonly #sockets = streamSocketPair();
  #written: Uint8Array[] = [];

  constructor(service: Service, structured: boolean) {
    this.#structured = structured;
    for (const fd of this.#sockets) setSendBuffer(fd, SOCKET_BYTES);
    const options = { structured, allocation: structured };
    this.#session = new Session(this.#sockets[0], service, options, () => undefined);
  }

  get statistics(): Statistics {
    return this.#session.connection.statistics;
  }

  /** Whether it is of no more use: broken, or within a request. */
  get isStuck(): boolean {
    return this.#session.ending !== undefined || this.#session.connection.inbox.midRequest;
  }

  get isBroken(): boolean {
    return this.#session.connection.fault !== "";
  }

  /** Whether all that it was asked for is answered. */
  get isDone(): boolean {
    return this.#session.connection.left === 0;
  }

  receive(piece: Uint8Array): void {
    if (this.#session.ending !== undefined || piece.length === 0) return;
    sendBytes(this.#sockets[1], piece);
    this.run();
  }

  run(): void {
    do this.#session.step(STEP_MS);
    while (this.#session.isReady);
    for (;;) {
      const length = receiveBytes(this.#sockets[1], received);
      if (length <= 0) return;
      this.#written.push(received.slice(0, length));
    }
  }

  /** Nothing more comes: checks what has been written. */
  leave(): void {
    this.run();
    this.#session.leave();
    this.#session.connection.close();
    for (const fd of this.#sockets) close(fd);
    checkReplies(Buffer.concat(this.#written), this.#structured);
  }
}
