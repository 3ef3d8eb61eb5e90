/** Blocks on an NBD server, over one connection. */
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  nbd_reply,
  NBD_REPLY_MAGIC,
  nbd_request,
  NBD_REQUEST_MAGIC,
} from "../../../src/uapi/nbd.ts";
import { NbdConnection } from "./nbd-connection.ts";
import type { Store } from "./store.ts";

/** A request without an answer yet. */
interface Pending {
  /** The buffer of a read. */
  readonly target: Uint8Array | undefined;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

interface Request {
  readonly command: number;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
}

/** A request's header on the wire. */
export function encodeRequest({ command, cookie, offset, length }: Request): Uint8Array {
  const view = new DataView(new ArrayBuffer(nbd_request.size));
  view.setUint32(nbd_request.magic, NBD_REQUEST_MAGIC);
  view.setUint32(nbd_request.type, command);
  view.setUint32(nbd_request.cookie + 4, cookie);
  view.setBigUint64(nbd_request.from, BigInt(offset));
  view.setUint32(nbd_request.len, length);
  return new Uint8Array(view.buffer);
}

export class NbdStore implements Store {
  readonly #connection: NbdConnection;
  readonly #pending = new Map<number, Pending>();
  #cookie = 0;

  private constructor(connection: NbdConnection) {
    this.#connection = connection;
    connection.listener = { received: () => this.#receive(), closed: () => this.#closed() };
    if (connection.isClosed) this.#closed();
  }

  static async connect(uri: string): Promise<NbdStore> {
    const connection = await NbdConnection.connect(uri);
    await connection.negotiate();
    return new NbdStore(connection);
  }

  write(block: number, source: Uint8Array): Promise<void> {
    const length = source.length;
    return this.#ask({ command: NBD_CMD_WRITE, offset: block * length, length }, { source });
  }

  read(block: number, target: Uint8Array): Promise<void> {
    const length = target.length;
    return this.#ask({ command: NBD_CMD_READ, offset: block * length, length }, { target });
  }

  flush(): Promise<void> {
    return this.#ask({ command: NBD_CMD_FLUSH, offset: 0, length: 0 }, {});
  }

  async close(): Promise<void> {
    this.#connection.close();
  }

  #ask(
    request: Omit<Request, "cookie">,
    { source, target }: { readonly source?: Uint8Array; readonly target?: Uint8Array },
  ): Promise<void> {
    if (this.#connection.isClosed) return Promise.reject(gone());
    const cookie = (this.#cookie += 1);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pending.set(cookie, { target, resolve, reject });
    this.#connection.send(encodeRequest({ ...request, cookie }));
    if (source !== undefined) this.#connection.send(source);
    return promise;
  }

  #receive(): void {
    for (;;) {
      const { bytes } = this.#connection;
      if (bytes.length < nbd_reply.size) return;
      const pending = this.#pending.get(bytes.readUInt32BE(nbd_reply.cookie + 4));
      if (bytes.readUInt32BE(nbd_reply.magic) !== NBD_REPLY_MAGIC || pending === undefined)
        throw new Error(`no reply to a request: ${bytes.subarray(0, nbd_reply.size).toHex()}`);
      const error = bytes.readUInt32BE(nbd_reply.error);
      const length = error === 0 ? (pending.target?.length ?? 0) : 0;
      const end = nbd_reply.size + length;
      if (bytes.length < end) return;
      if (error === 0) pending.target?.set(bytes.subarray(nbd_reply.size, end));
      this.#pending.delete(bytes.readUInt32BE(nbd_reply.cookie + 4));
      this.#connection.bytes = bytes.subarray(end);
      if (error === 0) pending.resolve();
      else pending.reject(new Error(`the server's error ${error}`));
    }
  }

  #closed(): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of all) reject(gone());
  }
}

function gone(): Error {
  return new Error("ECONNRESET: the server closed the connection");
}
