/** The C server to compare the ublk transport with, ublk-peer.c: built with cc, run in the virtual machine. */
import { Failure } from "../lib/failure.ts";
import { binaryOf, compile } from "./compile.ts";
import { firstLine } from "./load.ts";

const BINARY = binaryOf("ublk-peer");

/** How data moves between a request and the store: see ublk-peer.c. */
export const UBLK_COPIES = ["copied", "user-copy", "need-get-data"] as const;
export type UblkCopy = (typeof UBLK_COPIES)[number];

export interface UblkPeerOptions {
  /** Bytes of the RAM disk: whole pages. */
  readonly size: number;
  /** Default: copied. */
  readonly copy?: UblkCopy;
  /** Each has a thread. Default: 1; the driver limits it to the number of processors. */
  readonly queues?: number;
  /** Requests in flight for each queue. Default: 128. */
  readonly depth?: number;
  /** Bytes of the longest request: whole pages. Default: 512 KiB. */
  readonly requestBytes?: number;
}

/** A served device; disposing of it stops and deletes it. */
export interface UblkPeer extends AsyncDisposable {
  /** /dev/ublkbN. */
  readonly path: string;
  readonly pid: number;
}

/** Builds it with this machine's headers. @throws Failure */
export function buildUblkPeer(): Promise<void> {
  return compile("ublk-peer", ["-pthread"]);
}

/** Starts it; build it first. @throws Failure when it ends without a device */
export async function startUblkPeer(options: UblkPeerOptions): Promise<UblkPeer> {
  const { size, copy = "copied", queues = 1, depth = 128, requestBytes = 512 * 1024 } = options;
  const numbers = { size, queues, depth, "request-bytes": requestBytes };
  const words = Object.entries(numbers).map(([name, value]) => `--${name}=${value}`);
  const server = Bun.spawn([BINARY, `--copy=${copy}`, ...words], { stdio: ["ignore", "pipe", "inherit"] });
  const path = await firstLine(server.stdout);
  if (path === "") throw new Failure(`the C server ended with status ${await server.exited}: see above`);
  return {
    path,
    pid: server.pid,
    [Symbol.asyncDispose]: async () => {
      server.kill("SIGTERM");
      await server.exited;
    },
  };
}
