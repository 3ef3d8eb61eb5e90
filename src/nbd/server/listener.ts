/** The listening socket of a server that looks after its sockets itself: see server.ts. */
import { UserError } from "../../errors.ts";
import { unwrap } from "../../libc/errno.ts";
import { close } from "../../libc/file.ts";
import { isAddress, listenTcp, listenUnix, localPort } from "../../libc/listen.ts";
import { errno } from "../../uapi/errno.ts";
import type { ServerTarget } from "./target.ts";
import { claimSocketPath, giveSocketPathBack, type PlacedSocket } from "./unix-listener.ts";

export interface Listener {
  readonly fd: number;
  /** Where it listens: with the port that was free, where any would do. */
  readonly target: ServerTarget;
  /** Takes no more connections; a Unix socket's path is gone afterwards. */
  close(): void;
}

/** @throws UserError if the address is unavailable. */
export async function openListener(target: ServerTarget): Promise<Listener> {
  if (target.kind === "unix") {
    const { path } = target;
    const socket = await claimSocketPath(path, () => unwrap(listenUnix(path), "bind"));
    return { fd: socket.fd, target, close: () => closeUnix(path, socket) };
  }
  const { host, port } = target;
  const fd = listenTcp(await addressOf(host, port), port);
  if (fd < 0) throw cannotListen(host, port, whyNot(-fd));
  return { fd, target: { ...target, port: localPort(fd) }, close: () => void close(fd) };
}

/** The path first: who finds it gone may take it, and cannot meet a socket that takes no more. */
function closeUnix(path: string, socket: PlacedSocket): void {
  giveSocketPathBack(path, socket);
  close(socket.fd);
}

async function addressOf(host: string, port: number): Promise<string> {
  if (isAddress(host)) return host;
  // Loaded here alone: it takes longer than all the rest of the start.
  const { lookup } = await import("node:dns/promises");
  try {
    return (await lookup(host)).address;
  } catch (error) {
    throw cannotListen(host, port, "no such host is known, give an address of this machine", error);
  }
}

/** How listening on a TCP address fails. */
function cannotListen(host: string, port: number, reason: string, cause?: unknown): UserError {
  return new UserError(`cannot listen on ${host}, port ${port}: ${reason}`, { cause });
}

function whyNot(number: number): string {
  switch (number) {
    case errno.EADDRINUSE:
      return "the port is in use, choose another";
    case errno.EACCES:
      return "permission denied, choose a port above 1023";
    default:
      return "no such address on this machine, give one that it has";
  }
}
