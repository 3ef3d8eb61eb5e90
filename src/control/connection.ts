/**
 * A client of the control socket. Each command and each answer is a JSON object on a line of its own; answers come in
 * order. A client that sends too much or does not read costs the process a little memory, for a limited time.
 */
import { messageOf } from "../errors.ts";
import { close } from "../libc/file.ts";
import { receiveBytes, sendBytes } from "../libc/socket.ts";
import { errno } from "../uapi/errno.ts";

/** The longest line of a command, in bytes. */
export const LINE_MAX = 65_536;
/** How long a client may send no command, or leave an answer unread, in milliseconds. */
const SILENCE_MS = 10_000;
const NEWLINE = 10;

/** A command or an answer: numbers, texts and lists of them, by name. */
export type Message = Readonly<Record<string, unknown>>;

/** The client that has sent a command. */
export interface Asker {
  /** Aborted when the client has disconnected. */
  readonly gone: AbortSignal;
  /** Allows the client to be silent from now on without losing its place. */
  stay(): void;
}

/** Carries a command out. If it throws, the error is the answer. */
export type Answer = (request: Message, asker: Asker) => Message | Promise<Message>;

export class ControlConnection {
  readonly #fd: number;
  readonly #answer: Answer;
  readonly #over: (connection: ControlConnection) => void;
  readonly #gone = new AbortController();
  readonly #asker: Asker = { gone: this.#gone.signal, stay: () => (this.#mayStay = true) };
  #mayStay = false;
  #input = new Uint8Array(0);
  #output = new Uint8Array(0);
  #isAnswering = false;
  #hasEnded = false;
  #isClosed = false;
  #silence: Timer | undefined;

  /** @param fd is owned by the connection from now on. @param over is called once, when the connection is closed. */
  constructor(fd: number, answer: Answer, over: (connection: ControlConnection) => void) {
    this.#fd = fd;
    this.#answer = answer;
    this.#over = over;
    this.#expect();
  }

  /** Whether the client waits for an answer that is not ready. */
  get isAnswering(): boolean {
    return this.#isAnswering;
  }

  /** Whether it must not be closed to make room for another client. */
  get keepsPlace(): boolean {
    return this.#isAnswering || this.#mayStay;
  }

  /** Receives everything that has arrived, and sends what the socket takes. */
  service(): void {
    if (this.#isClosed) return;
    if (this.#output.length > 0) this.#send();
    this.#receive();
    this.#proceed();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#silence);
    close(this.#fd);
    this.#gone.abort();
    this.#over(this);
  }

  #receive(): void {
    while (!this.#isClosed && !this.#hasEnded && this.#input.length <= LINE_MAX) {
      const chunk = new Uint8Array(new ArrayBuffer(LINE_MAX + 1 - this.#input.length));
      const result = receiveBytes(this.#fd, chunk);
      if (result === -errno.EAGAIN || result === -errno.EINTR) return;
      if (result < 0) return this.close();
      if (result === 0) {
        this.#hasEnded = true;
        return this.#gone.abort();
      }
      this.#input = Buffer.concat([this.#input, chunk.subarray(0, result)]);
    }
  }

  /** The next command, once the answer of the one before is out. */
  #proceed(): void {
    if (this.#isClosed || this.#isAnswering || this.#output.length > 0) return;
    const end = this.#input.indexOf(NEWLINE);
    if (end >= 0) {
      const line = this.#input.subarray(0, end);
      this.#input = this.#input.slice(end + 1);
      clearTimeout(this.#silence);
      void this.#carryOut(line);
    } else if (this.#hasEnded) {
      this.close();
    } else if (this.#input.length > LINE_MAX) {
      this.#input = new Uint8Array(0);
      this.#hasEnded = true;
      this.#reply({ error: `a command has more than ${LINE_MAX} bytes` });
    }
  }

  async #carryOut(line: Uint8Array): Promise<void> {
    this.#isAnswering = true;
    let reply: Message;
    try {
      reply = await this.#answer(parse(line), this.#asker);
    } catch (error) {
      reply = { error: messageOf(error) };
    }
    this.#isAnswering = false;
    this.#reply(reply);
  }

  #reply(message: Message): void {
    if (this.#isClosed) return;
    this.#output = new TextEncoder().encode(`${JSON.stringify(message)}\n`);
    this.#expect();
    this.#send();
    // The next command gets its turn after those of other clients.
    setImmediate(() => this.service());
  }

  #send(): void {
    while (!this.#isClosed && this.#output.length > 0) {
      const result = sendBytes(this.#fd, this.#output);
      if (result === -errno.EAGAIN || result === -errno.EINTR) return;
      if (result < 0) return this.close();
      this.#output = this.#output.subarray(result);
    }
  }

  #expect(): void {
    clearTimeout(this.#silence);
    if (this.#mayStay) return;
    this.#silence = setTimeout(() => this.close(), SILENCE_MS);
    this.#silence.unref();
  }
}

/** @throws Error if it is not a valid command. */
function parse(line: Uint8Array): Message {
  const value: unknown = JSON.parse(new TextDecoder().decode(line));
  if (!isMessage(value)) throw new Error("a command is to be an object of JSON");
  return value;
}

export function isMessage(value: unknown): value is Message {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
