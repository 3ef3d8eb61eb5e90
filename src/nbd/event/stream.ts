/** Ties event connections to the sockets of the runtime. */
import type { EventConnection } from "./event-connection.ts";
import type { Outlet } from "./event-types.ts";

declare module "bun" {
  // The runtime takes a connected socket in place of an address; its types have the options but not the function.
  function connect<Data = undefined>(options: FdSocketOptions<Data>): Promise<Socket<Data>>;
}

/** What a socket is served by; it can be handed over from one to the next. */
export interface StreamHandler {
  receive(chunk: Uint8Array): void;
  drained(): void;
  /** The peer sends nothing more. */
  ended(): void;
  /** Nothing comes or goes any more. */
  closed(): void;
}

/** The data that hangs on each socket. */
export interface StreamData {
  handler: StreamHandler;
}

/** The callbacks of a socket that leave it all to its handler. */
export const streamCallbacks = {
  data: (socket, chunk) => socket.data?.handler.receive(chunk),
  drain: (socket) => socket.data?.handler.drained(),
  end: (socket) => socket.data?.handler.ended(),
  close: (socket) => socket.data?.handler.closed(),
  // What fails is closed next.
  error: () => undefined,
} satisfies Bun.SocketHandler<StreamData | undefined>;

/** The socket as a connection sees it. */
export function outletOf(socket: Bun.Socket<StreamData | undefined>): Outlet {
  return {
    write: (bytes) => socket.write(bytes),
    pause: () => {
      socket.pause();
    },
    resume: () => {
      socket.resume();
    },
    end: () => {
      socket.end();
    },
  };
}

/**
 * Serves a connected stream socket. It belongs to the runtime from now on: it is closed by {@link Served.close}, or
 * some time after the connection has finished and the peer has closed its end as well.
 * @param make makes the connection from its outlet.
 */
export async function serveSocket(fd: number, make: (outlet: Outlet) => EventConnection): Promise<Served> {
  const { promise, resolve } = Promise.withResolvers<Served>();
  await Bun.connect<StreamData | undefined>({
    fd,
    data: undefined,
    allowHalfOpen: true,
    socket: {
      ...streamCallbacks,
      open(socket) {
        const connection = make(outletOf(socket));
        socket.data = { handler: connection };
        resolve({ connection, close: () => socket.terminate() });
      },
    },
  });
  return promise;
}

export interface Served {
  readonly connection: EventConnection;
  /** Closes the socket, whatever it is doing. */
  close(): void;
}
