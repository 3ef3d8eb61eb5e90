/** Listening sockets. Each function returns what its system call returns, or -errno (see errno.ts). */
import {
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPV6_V6ONLY,
  sockaddr_in,
  sockaddr_in6,
  TCP_KEEPIDLE,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
} from "../uapi/in.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  SO_KEEPALIVE,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../uapi/socket.ts";
import { cString } from "./address.ts";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";
import { unixAddress } from "./socket.ts";

/** The maximum number of connections waiting to be accepted. */
const BACKLOG = 512;

/** Makes a Unix socket that listens at `path`. Returns its file descriptor. */
export function listenUnix(path: string): number {
  return bindAndListen(AF_UNIX, unixAddress(path), () => undefined);
}

/** Whether the text is a numeric IPv4 or IPv6 address. */
export function isAddress(text: string): boolean {
  return addressBytes(text) !== undefined;
}

/**
 * Makes a TCP socket that listens. Returns its file descriptor.
 * @param address numeric, IPv4 or IPv6.
 * @param port 0 for any free port.
 */
export function listenTcp(address: string, port: number): number {
  const family = address.includes(":") ? AF_INET6 : AF_INET;
  return bindAndListen(family, internetAddress(address, port), (fd) => {
    setNumber(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (family === AF_INET6) setNumber(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  });
}

/** The port that a TCP socket is bound to. */
export function localPort(fd: number): number {
  const address = new Uint8Array(new ArrayBuffer(sockaddr_in6.size));
  const length = Uint32Array.of(address.byteLength);
  const result = negativeErrno(libc.getsockname(fd, address, length));
  return result < 0 ? result : new DataView(address.buffer).getUint16(sockaddr_in.sin_port);
}

/** A new connection: its socket, and the peer's numeric address, "" on a Unix socket. */
export interface Accepted {
  readonly fd: number;
  readonly address: string;
}

/** accept4(2): the next connection, as a blocking socket. `fd` is -errno, -EAGAIN if there is none. */
export function accept(listener: number): Accepted {
  const address = new Uint8Array(new ArrayBuffer(sockaddr_in6.size));
  const length = Uint32Array.of(address.byteLength);
  const fd = negativeErrno(libc.accept4(listener, address, length, SOCK_CLOEXEC));
  return { fd, address: fd < 0 ? "" : addressText(new DataView(address.buffer)) };
}

/** Sets options for small messages in both directions: no delay, and a check for a dead peer after `idleSeconds`. */
export function setTcpOptions(fd: number, idleSeconds: number): void {
  setNumber(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setNumber(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setNumber(fd, IPPROTO_TCP, TCP_KEEPIDLE, idleSeconds);
}

/** TCP_USER_TIMEOUT: ends the connection if sent data stays unacknowledged for this long, in milliseconds. */
export function setUserTimeout(fd: number, milliseconds: number): number {
  return setNumber(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds);
}

function bindAndListen(family: number, address: Uint8Array, prepare: (fd: number) => void): number {
  const fd = negativeErrno(libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd < 0) return fd;
  prepare(fd);
  let result = negativeErrno(libc.bind(fd, address, address.byteLength));
  if (result >= 0) result = negativeErrno(libc.listen(fd, BACKLOG));
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}

/** `struct sockaddr_in` or `sockaddr_in6`, for an address as {@link listenTcp} takes it. */
function internetAddress(address: string, port: number): Uint8Array {
  const isSix = address.includes(":");
  const family = isSix ? AF_INET6 : AF_INET;
  const bytes = new Uint8Array(new ArrayBuffer(isSix ? sockaddr_in6.size : sockaddr_in.size));
  const view = new DataView(bytes.buffer);
  view.setUint16(sockaddr_in.sin_family, family, true);
  view.setUint16(sockaddr_in.sin_port, port);
  const number = addressBytes(address);
  if (number === undefined) throw new Error(`${address} is no address`);
  bytes.set(number, isSix ? sockaddr_in6.sin6_addr : sockaddr_in.sin_addr);
  return bytes;
}

/** inet_pton(3): the 4 or 16 bytes of an address. */
function addressBytes(text: string): Uint8Array | undefined {
  const isSix = text.includes(":");
  const bytes = new Uint8Array(new ArrayBuffer(isSix ? 16 : 4));
  return libc.inet_pton(isSix ? AF_INET6 : AF_INET, cString(text), bytes) === 1 ? bytes : undefined;
}

/** `127.0.0.1`, `::1`, or "" for a Unix socket. */
function addressText(view: DataView): string {
  const family = view.getUint16(sockaddr_in.sin_family, true);
  if (family === AF_INET) {
    return [0, 1, 2, 3].map((index) => view.getUint8(sockaddr_in.sin_addr + index)).join(".");
  }
  if (family !== AF_INET6) return "";
  const groups = [0, 2, 4, 6, 8, 10, 12, 14].map((at) =>
    view.getUint16(sockaddr_in6.sin6_addr + at).toString(16),
  );
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}

function setNumber(fd: number, level: number, option: number, value: number): number {
  return negativeErrno(libc.setsockopt(fd, level, option, Int32Array.of(value), 4));
}
