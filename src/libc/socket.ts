/**
 * Sockets. Each function returns what its system call returns, or -errno (see errno.ts). Those of the request loop
 * take addresses, since what they move lies anywhere in memory.
 */
import { ptr } from "bun:ffi";
import {
  AF_UNIX,
  MSG_NOSIGNAL,
  msghdr,
  SHUT_RDWR,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../uapi/socket.ts";
import { pointer } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import type { IovecTable } from "./iovec.ts";
import { libc } from "./library.ts";

/** A connected pair of Unix stream sockets, as NBD_SET_SOCK takes them. @throws ErrnoError */
export function streamSocketPair(): readonly [number, number] {
  const pair = new Int32Array(new ArrayBuffer(8));
  unwrap(negativeErrno(libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)), "socketpair");
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/**
 * SO_RCVTIMEO: a receive returns -EAGAIN after `milliseconds`. A socket with such a time-out has a second property
 * that the request loop lives on: a signal ends the wait with -EINTR even though the runtime installs its handlers
 * with SA_RESTART (signal(7), "Interruption of system calls").
 */
export function setReceiveTimeout(fd: number, milliseconds: number): number {
  const timeval = new BigInt64Array(new ArrayBuffer(16));
  timeval[0] = BigInt(Math.floor(milliseconds / 1000));
  timeval[1] = BigInt((milliseconds % 1000) * 1000);
  return negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval, timeval.byteLength));
}

/** SO_SNDBUF in bytes, beyond net.core.wmem_max where the process may (CAP_NET_ADMIN). */
export function setSendBuffer(fd: number, bytes: number): number {
  const value = new Int32Array(new ArrayBuffer(4)).fill(bytes);
  const forced = negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value, value.byteLength));
  if (forced >= 0) return forced;
  return negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength));
}

/** recv(2) of up to `length` bytes to `address`. Returns the bytes received, 0 when the peer has closed. */
export function receive(fd: number, address: number, length: number): number {
  return negativeErrno(libc.recv(fd, pointer(address), length, 0));
}

/** readv(2): fills the entries of `table` in order. Returns the bytes received, 0 when the peer has closed. */
export function receiveVector(fd: number, table: IovecTable): number {
  return negativeErrno(libc.readv(fd, table.words, table.count));
}

/** A `struct msghdr` that sends the `count` entries of an iovec table from `first` on. */
export class SendMessage {
  readonly #words = new Uint32Array(new ArrayBuffer(msghdr.size));
  readonly #tableAddress: number;

  constructor(readonly table: IovecTable) {
    this.#tableAddress = ptr(table.words);
  }

  /** sendmsg(2) with MSG_NOSIGNAL. Returns the bytes sent, perhaps fewer than the entries hold. */
  send(fd: number, first: number): number {
    const address = this.#tableAddress + first * 16;
    this.#words[msghdr.msg_iov / 4] = address % 2 ** 32;
    this.#words[msghdr.msg_iov / 4 + 1] = address / 2 ** 32;
    this.#words[msghdr.msg_iovlen / 4] = this.table.count - first;
    return negativeErrno(libc.sendmsg(fd, this.#words, MSG_NOSIGNAL));
  }
}

/** shutdown(2) of both directions: the peer reads the end of the stream, and so does every reader of ours. */
export function shutdown(fd: number): number {
  return negativeErrno(libc.shutdown(fd, SHUT_RDWR));
}

/**
 * `struct sockaddr_un` of unix(7): the family in native order, then the name.
 * @param path a file, or with a leading `@` a name in the abstract namespace.
 */
function unixAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : path);
  const address = new Uint8Array(new ArrayBuffer(2 + name.byteLength));
  address[0] = AF_UNIX;
  address.set(name, 2);
  return address;
}

/** A Unix stream socket connected to `path`. Returns its file descriptor. */
export function connectUnix(path: string): number {
  const fd = negativeErrno(libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  const address = unixAddress(path);
  const result = negativeErrno(libc.connect(fd, address, address.byteLength));
  if (result === 0) return fd;
  libc.close(fd);
  return result;
}

/** Sends one datagram to the Unix socket at `path` and forgets about it. Returns the bytes sent. */
export function sendDatagram(path: string, text: string): number {
  const fd = negativeErrno(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  const address = unixAddress(path);
  const bytes = new TextEncoder().encode(text);
  const result = negativeErrno(
    libc.sendto(fd, bytes, bytes.byteLength, MSG_NOSIGNAL, address, address.byteLength),
  );
  libc.close(fd);
  return result;
}
