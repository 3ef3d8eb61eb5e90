/** A client that sends whatever a test wants, and reads only as much as the test wants. */
import { hello } from "./golden-handshake.ts";
import { concatenate } from "./golden.ts";
import { until } from "./shell.ts";

const GREETING_BYTES = 18;

interface State {
  received: Uint8Array[];
  /** Bytes that the socket has not taken yet. */
  unsent: Uint8Array;
  closed: boolean;
}

export class RawClient implements Disposable {
  readonly #socket: Bun.Socket;
  readonly #state: State;

  private constructor(socket: Bun.Socket, state: State) {
    this.#socket = socket;
    this.#state = state;
  }

  /** @param uri as the server reports it. */
  static async connect(uri: string): Promise<RawClient> {
    const state: State = { received: [], unsent: new Uint8Array(), closed: false };
    const close = (): void => {
      state.closed = true;
    };
    const socket = {
      data: (_: Bun.Socket, chunk: Uint8Array): void => {
        state.received.push(chunk);
      },
      drain: (drained: Bun.Socket): void => {
        state.unsent = state.unsent.subarray(drained.write(state.unsent));
      },
      // The end of the server's stream counts as the end of the connection.
      end: close,
      close,
      error: () => undefined,
    };
    const path = new URL(uri).searchParams.get("socket");
    const port = Number(new URL(uri).port);
    const connected =
      path === null
        ? await Bun.connect({ hostname: "127.0.0.1", port, socket })
        : await Bun.connect({ unix: path, socket });
    return new RawClient(connected, state);
  }

  /** A client in the transmission phase, with simple replies. */
  static async transmitting(uri: string): Promise<RawClient> {
    const client = await RawClient.connect(uri);
    client.send(hello());
    // Export, block size, acknowledgement.
    await client.take(GREETING_BYTES + 32 + 34 + 20);
    return client;
  }

  get isClosed(): boolean {
    return this.#state.closed;
  }

  get received(): Uint8Array {
    return concatenate(this.#state.received);
  }

  /** Sends any number of bytes as fast as the server takes them. */
  send(bytes: Uint8Array): void {
    const { unsent } = this.#state;
    const all = unsent.length === 0 ? bytes : concatenate([unsent, bytes]);
    this.#state.unsent = all.subarray(unsent.length === 0 ? this.#socket.write(all) : 0);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  async bytes(count: number): Promise<Uint8Array> {
    await until(`${count} bytes from the server`, () => this.received.length >= count || this.isClosed);
    return this.received;
  }

  /** As {@link bytes}, but removes the bytes. */
  async take(count: number): Promise<Uint8Array> {
    const bytes = await this.bytes(count);
    this.#state.received = [];
    return bytes;
  }

  /** The number of bytes received, once `count` have arrived or no more will come. */
  async size(count: number): Promise<number> {
    const size = (): number => this.#state.received.reduce((sum, chunk) => sum + chunk.length, 0);
    await until(`${count} bytes from the server`, () => size() >= count || this.isClosed);
    return size();
  }

  async closed(): Promise<void> {
    await until("the server has closed the connection", () => this.isClosed);
  }

  [Symbol.dispose](): void {
    this.#socket.terminate();
  }
}
