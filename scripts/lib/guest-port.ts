/**
 * Our end of a virtio port: a Unix socket that QEMU connects to.
 */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";

/** A port of the guest. It can be read once. */
export interface GuestPort extends AsyncDisposable {
  /** The guest's output, from the moment QEMU connects until it ends. */
  chunks(): AsyncIterable<Buffer>;
  /** Writes to the guest, once QEMU has connected. */
  send(text: string): void;
}

/** Listens at `path`; QEMU may connect once this has settled. */
export async function openGuestPort(path: string): Promise<GuestPort> {
  const connection = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    connection.resolve(socket);
  });
  server.listen(path);
  await once(server, "listening");
  return {
    async *chunks() {
      try {
        yield* await connection.promise;
      } catch {
        // A killed QEMU may reset the connection. Its starter sees that it has ended.
      }
    },
    send(text) {
      void connection.promise.then((socket) => socket.write(text));
    },
    async [Symbol.asyncDispose]() {
      server.close();
      // Does not wait: QEMU may never have connected.
      void connection.promise.then((socket) => socket.destroy());
    },
  };
}
