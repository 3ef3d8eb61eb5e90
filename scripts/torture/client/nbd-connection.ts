/** A connection to an NBD server, made by hand: the caller chooses what it sends (doc/proto.md). */

/** NBD_FLAG_C_FIXED_NEWSTYLE and NBD_FLAG_C_NO_ZEROES. */
const CLIENT_FLAGS = 3;
const OPTION_MAGIC = 0x4948_4156_454f_5054n;
const EXPORT_NAME = 1;
const GREETING_BYTES = 18;
/** The size, and the flags of the export. */
const EXPORT_BYTES = 10;

/** Called whenever bytes have arrived, and once at the end of the connection. */
interface Listener {
  readonly received: () => void;
  readonly closed: () => void;
}

export class NbdConnection {
  /** Bytes received and not yet taken. */
  bytes = Buffer.alloc(0);
  isClosed = false;
  listener: Listener | undefined;
  #socket: Bun.Socket | undefined;
  /** Bytes that the socket has not accepted yet. */
  #unsent: Uint8Array[] = [];

  /** Connects to `nbd+unix:///?socket=PATH` or `nbd://HOST:PORT`. */
  static async connect(uri: string): Promise<NbdConnection> {
    const connection = new NbdConnection();
    const socket = connection.#handlers();
    const { hostname, port, searchParams } = new URL(uri);
    const path = searchParams.get("socket");
    connection.#socket = await (path === null
      ? Bun.connect({ hostname, port: Number(port), socket })
      : Bun.connect({ unix: path, socket }));
    return connection;
  }

  /** Performs the handshake. Requests may follow, and their replies are simple ones. */
  async negotiate(): Promise<void> {
    await this.#take(GREETING_BYTES);
    const words = new DataView(new ArrayBuffer(20));
    words.setUint32(0, CLIENT_FLAGS);
    words.setBigUint64(4, OPTION_MAGIC);
    words.setUint32(12, EXPORT_NAME);
    this.send(new Uint8Array(words.buffer));
    await this.#take(EXPORT_BYTES);
  }

  /** Keeps the bytes until they have been sent. */
  send(bytes: Uint8Array): void {
    this.#unsent.push(bytes);
    if (this.#unsent.length === 1) this.#drain();
  }

  /** Stops reading. */
  pause(): void {
    this.#socket?.pause();
  }

  close(): void {
    this.#socket?.terminate();
  }

  async #take(count: number): Promise<void> {
    while (this.bytes.length < count) {
      if (this.isClosed) throw new Error("ECONNRESET: the server closed the connection in the handshake");
      const { promise, resolve } = Promise.withResolvers<void>();
      this.listener = { received: resolve, closed: resolve };
      await promise;
    }
    this.listener = undefined;
    this.bytes = this.bytes.subarray(count);
  }

  #drain(): void {
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      const sent = this.#socket?.write(next) ?? 0;
      if (sent < 0) return;
      if (sent < next.length) {
        this.#unsent[0] = next.subarray(sent);
        return;
      }
      this.#unsent.shift();
    }
  }

  #handlers() {
    const closed = (): void => {
      if (this.isClosed) return;
      this.isClosed = true;
      this.listener?.closed();
    };
    return {
      data: (_: Bun.Socket, chunk: Uint8Array): void => {
        this.bytes = Buffer.concat([this.bytes, chunk]);
        this.listener?.received();
      },
      drain: (): void => this.#drain(),
      // The end of the server's stream counts as the end of the connection.
      end: closed,
      close: closed,
      error: closed,
    };
  }
}
