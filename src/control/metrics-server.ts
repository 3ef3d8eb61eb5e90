/**
 * `--metrics`: what a serving process has counted, over HTTP, for Prometheus. Like the control socket, it is woken by a
 * signal and costs nothing while there are no requests. A client costs an answer and a little memory, for a limited
 * time: one that never asks or never reads is disconnected.
 */
import { messageOf } from "../errors.ts";
import { close } from "../libc/file.ts";
import { accept } from "../libc/listen.ts";
import { receiveBytes, sendBytes, signalNews } from "../libc/socket.ts";
import { unwrap } from "../libc/errno.ts";
import { type Listener, openListener } from "../nbd/server/listener.ts";
import { parseServerTarget, type ServerTarget } from "../nbd/server/target.ts";
import { errno } from "../uapi/errno.ts";
import { SIGURG } from "../uapi/signal.ts";
import type { Subject } from "./commands.ts";
import { metricsText } from "./metrics.ts";

/** One more client takes the place of the oldest. */
const CONNECTIONS_MAX = 16;
/** The longest head of a request, in bytes. */
const HEAD_MAX = 8192;
/** How long a client may take to send its request, and to read the answer, in milliseconds. */
const LIMIT_MS = 10_000;
/** How often, and for how long, to try an address that the previous process may still use, in milliseconds. */
const AGAIN_MS = 500;
const AGAIN_LIMIT_MS = 60_000;
const NEWS = "SIGURG";
const TEXT = "text/plain; version=0.0.4; charset=utf-8";

/**
 * `HOST:PORT`, `:PORT` or `PORT` on loopback, `unix:PATH`; undefined for anything else, and for port 0: nobody would
 * know which one it became. @throws UserError
 */
export function parseMetricsAddress(text: string): ServerTarget | undefined {
  if (/^unix:./.test(text)) return parseServerTarget(text);
  const [, host = "", port] = /^(?:(\[[^\]]+\]|[^:[\]/]*):)?(\d+)$/.exec(text) ?? [];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return parseServerTarget(`tcp:${host}:${port}`);
}

export class MetricsServer implements Disposable {
  readonly #address: ServerTarget;
  readonly #log: ((line: string) => void) | undefined;
  readonly #connections = new Set<Scrape>();
  readonly #onNews = (): void => this.#service();
  #listener: Listener | undefined;
  #subject: Subject | undefined;
  #timer: Timer | undefined;
  #isClosed = false;

  private constructor(address: ServerTarget, log: ((line: string) => void) | undefined) {
    this.#address = address;
    this.#log = log;
  }

  /**
   * Listens. Clients wait until {@link serve}.
   * @param mayWait if the previous process still uses the address, try again in the background.
   * @throws UserError if the address is in use, or invalid.
   */
  static async listen(
    address: ServerTarget,
    mayWait: boolean,
    log: ((line: string) => void) | undefined,
  ): Promise<MetricsServer> {
    const server = new MetricsServer(address, log);
    try {
      server.#listener = await openListener(address);
    } catch (error) {
      if (!mayWait) throw error;
      server.#tryAgain(performance.now() + AGAIN_LIMIT_MS);
    }
    return server;
  }

  serve(subject: Subject): void {
    this.#subject = subject;
    process.on(NEWS, this.#onNews);
    if (this.#listener !== undefined) this.#watch(this.#listener);
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    process.off(NEWS, this.#onNews);
    for (const connection of this.#connections) connection.close();
    this.#listener?.close();
  }

  #tryAgain(until: number): void {
    this.#timer = setTimeout(async () => {
      try {
        const listener = await openListener(this.#address);
        if (this.#isClosed) return listener.close();
        this.#listener = listener;
        if (this.#subject !== undefined) this.#watch(listener);
      } catch (error) {
        if (this.#isClosed) return;
        if (performance.now() < until) this.#tryAgain(until);
        else this.#log?.(`there are no metrics: ${messageOf(error)}`);
      }
    }, AGAIN_MS);
    this.#timer.unref();
  }

  #watch({ fd }: Listener): void {
    unwrap(signalNews(fd, SIGURG), "fcntl(F_SETOWN)");
    // Clients that connected before that have caused no signal.
    this.#service();
  }

  #service(): void {
    const [listener, subject] = [this.#listener, this.#subject];
    if (listener === undefined || subject === undefined) return;
    for (let { fd } = accept(listener.fd); fd >= 0; { fd } = accept(listener.fd)) this.#take(fd, subject);
    for (const connection of this.#connections) connection.service();
  }

  #take(fd: number, subject: Subject): void {
    if (this.#connections.size >= CONNECTIONS_MAX) [...this.#connections][0]?.close();
    if (signalNews(fd, SIGURG) < 0) {
      close(fd);
      return;
    }
    const scrape = new Scrape(fd, subject, (over) => this.#connections.delete(over));
    this.#connections.add(scrape);
    // Before another client that has come meanwhile takes its place.
    scrape.service();
  }
}

/** One connection: a request, its answer, the end. */
class Scrape {
  readonly #fd: number;
  readonly #subject: Subject;
  readonly #over: (scrape: Scrape) => void;
  readonly #limit: Timer;
  #head = "";
  #answer: Uint8Array | undefined;
  #isClosed = false;

  /** @param fd is owned by the connection from now on. */
  constructor(fd: number, subject: Subject, over: (scrape: Scrape) => void) {
    this.#fd = fd;
    this.#subject = subject;
    this.#over = over;
    this.#limit = setTimeout(() => this.close(), LIMIT_MS);
    this.#limit.unref();
  }

  /** Receives what has arrived, and sends what the socket takes. */
  service(): void {
    if (!this.#isClosed && this.#answer === undefined) this.#receive();
    if (!this.#isClosed && this.#answer !== undefined) this.#send();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#limit);
    close(this.#fd);
    this.#over(this);
  }

  #receive(): void {
    const chunk = new Uint8Array(new ArrayBuffer(HEAD_MAX));
    while (!this.#head.includes("\r\n\r\n")) {
      const received = receiveBytes(this.#fd, chunk);
      if (received === -errno.EAGAIN || received === -errno.EINTR) return;
      if (received <= 0 || this.#head.length > HEAD_MAX) return this.close();
      this.#head += Buffer.from(chunk.subarray(0, received)).toString("latin1");
    }
    this.#answer = new TextEncoder().encode(this.#respond());
  }

  #respond(): string {
    const [method = "", path = ""] = this.#head.split(/[ \r]/, 2);
    if (method !== "GET" && method !== "HEAD") return response("405 Method Not Allowed", "GET it\n", true);
    const isFound = path.replace(/\?.*/s, "") === "/metrics";
    const body = isFound ? metricsText(this.#subject) : "the metrics are at /metrics\n";
    return response(isFound ? "200 OK" : "404 Not Found", body, method === "GET");
  }

  #send(): void {
    while (this.#answer !== undefined) {
      const sent = sendBytes(this.#fd, this.#answer);
      if (sent === -errno.EAGAIN || sent === -errno.EINTR) return;
      if (sent < 0 || sent >= this.#answer.length) return this.close();
      this.#answer = this.#answer.subarray(sent);
    }
  }
}

function response(status: string, body: string, withBody: boolean): string {
  const length = Buffer.byteLength(body);
  const head = [
    `HTTP/1.1 ${status}`,
    `Content-Type: ${TEXT}`,
    `Content-Length: ${length}`,
    "Connection: close",
    "Allow: GET, HEAD",
  ];
  return `${head.join("\r\n")}\r\n\r\n${withBody ? body : ""}`;
}
