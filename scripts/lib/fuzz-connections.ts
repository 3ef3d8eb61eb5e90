/** A connection for the fuzzer: it takes bytes, and checks the bytes that the server writes. */
import { close } from "../../src/libc/file.ts";
import { receiveBytes, sendBytes, setSendBuffer, streamSocketPair } from "../../src/libc/socket.ts";
import type { Service } from "../../src/nbd/connection/service.ts";
import { Session } from "../../src/nbd/connection/session.ts";
import type { Statistics } from "../../src/transport.ts";
import { checkReplies } from "./fuzz-output.ts";

/** Room for all that is in flight between two checks, in bytes. */
const SOCKET_BYTES = 2 ** 20;
/** Longer than a step ever takes, in milliseconds. */
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

  /** Whether it is useless for a new request: broken, or in the middle of one. */
  get isStuck(): boolean {
    return this.#session.ending !== undefined || this.#session.connection.inbox.midRequest;
  }

  get isBroken(): boolean {
    return this.#session.connection.fault !== "";
  }

  /** Whether every request is answered. */
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

  /** Ends the connection and checks what the server wrote. */
  leave(): void {
    this.run();
    this.#session.leave();
    this.#session.connection.close();
    for (const fd of this.#sockets) close(fd);
    checkReplies(Buffer.concat(this.#written), this.#structured);
  }
}
