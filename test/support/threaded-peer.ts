/** A connection served on this thread for a peer on another, through a socket that blocks: as a kernel's is. */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { close } from "../../src/libc/file.ts";
import { setReceiveTimeout, setSendBuffer, shutdown, streamSocketPair } from "../../src/libc/socket.ts";
import { Connection } from "../../src/nbd/connection/connection.ts";
import type { ClientTask } from "./client.worker.ts";

export interface ThreadedOptions {
  readonly requests: Uint8Array;
  readonly replyBytes: number;
  readonly pieceBytes: number;
  readonly signal?: NodeJS.Signals;
  /** SO_SNDBUF of the connection's end, in bytes. */
  readonly sendBuffer: number;
}

const RECEIVE_TIMEOUT_MS = 1;
const DEADLINE_MS = 20_000;

/** All the bytes of the replies, in the order in which the peer got them. The device is closed in the end. */
export async function serveThread(device: BlockDevice, options: ThreadedOptions): Promise<Uint8Array> {
  const [ours, theirs] = streamSocketPair();
  setSendBuffer(ours, options.sendBuffer);
  setReceiveTimeout(ours, RECEIVE_TIMEOUT_MS);
  const connection = new Connection(ours, new Dispatch(device));
  const worker = new Worker(new URL("./client.worker.ts", import.meta.url));
  try {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    let running = true;
    const finished = promise.finally(() => {
      running = false;
    });
    worker.addEventListener("message", (event: MessageEvent<Uint8Array>) => resolve(event.data));
    worker.addEventListener("error", (event) => reject(new Error(event.message)));
    const { requests, replyBytes, pieceBytes, signal } = options;
    const task: ClientTask = { fd: theirs, requests, replyBytes, pieceBytes, signal };
    worker.postMessage(task, { transfer: [] });
    await pump(connection, () => running);
    return await finished;
  } finally {
    // Whatever went wrong, the worker reads the end of the stream and ends.
    shutdown(ours);
    close(ours);
    connection.close();
    device.close?.();
    worker.unref();
  }
}

/** Serves until the peer has all its replies, or the connection ends. @throws Error when that takes too long. */
async function pump(connection: Connection, isRunning: () => boolean): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (isRunning() && connection.run() === "turn") {
    if (performance.now() > deadline) throw new Error("the peer did not get all its replies in time");
    await eventLoopTurn();
  }
}

function eventLoopTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}
