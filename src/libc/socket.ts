/**
 * Sockets. Each function returns what its system call returns, or -errno (see errno.ts). The functions for the request
 * loop take addresses, because their data may lie anywhere in memory.
 */
import { ptr } from "bun:ffi";
import { F_SETFL, F_SETOWN, F_SETSIG, O_ASYNC, O_NONBLOCK } from "../uapi/fcntl.ts";
import {
  AF_UNIX,
  iovec,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  msghdr,
  SHUT_RDWR,
  SHUT_WR,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../uapi/socket.ts";
import { pointer } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import type { IovecTable } from "./iovec.ts";
import { libc } from "./library.ts";

const WORD = 2 ** 32;

/** A connected pair of Unix stream sockets, as NBD_SET_SOCK takes them. @throws ErrnoError */
export function streamSocketPair(): readonly [number, number] {
  const pair = new Int32Array(new ArrayBuffer(8));
  unwrap(negativeErrno(libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)), "socketpair");
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/**
 * SO_RCVTIMEO: a receive returns -EAGAIN after `milliseconds`. The request loop also relies on a second property of
 * such a socket: a signal ends the wait with -EINTR even though the runtime installs its handlers with SA_RESTART
 * (signal(7), "Interruption of system calls").
 */
export function setReceiveTimeout(fd: number, milliseconds: number): number {
  const timeval = new BigInt64Array(new ArrayBuffer(16));
  timeval[0] = BigInt(Math.floor(milliseconds / 1000));
  timeval[1] = BigInt((milliseconds % 1000) * 1000);
  return negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval, timeval.byteLength));
}

/** SO_SNDBUF in bytes; it may exceed net.core.wmem_max with CAP_NET_ADMIN. */
export function setSendBuffer(fd: number, bytes: number): number {
  const value = new Int32Array(new ArrayBuffer(4)).fill(bytes);
  const forced = negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value, value.byteLength));
  if (forced >= 0) return forced;
  return negativeErrno(libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength));
}

/**
 * recv(2) of up to `length` bytes to `address`. Returns the bytes received, 0 when the peer has closed.
 * @param flags MSG_DONTWAIT: returns -EAGAIN instead of waiting.
 */
export function receive(fd: number, address: number, length: number, flags = 0): number {
  return negativeErrno(libc.recv(fd, pointer(address), length, flags));
}

/** recv(2) into `target`, at once or -EAGAIN. Returns the bytes received, 0 when the peer has closed. */
export function receiveBytes(fd: number, target: Uint8Array): number {
  return negativeErrno(libc.recv(fd, target, target.byteLength, MSG_DONTWAIT));
}

const peeked = new Uint8Array(new ArrayBuffer(1));

/** Whether the peer has closed the stream, and all that it sent has been received. Never waits. */
export function isClosedByPeer(fd: number): boolean {
  return negativeErrno(libc.recv(fd, peeked, peeked.byteLength, MSG_PEEK | MSG_DONTWAIT)) === 0;
}

/** send(2) of `source`, at once or -EAGAIN. Returns the bytes sent, perhaps fewer than there are. */
export function sendBytes(fd: number, source: Uint8Array): number {
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  return negativeErrno(libc.sendto(fd, source, source.byteLength, flags, null, 0));
}

/** A `struct msghdr` for an iovec table, made once for any number of calls. */
class Message {
  protected readonly words = new Uint32Array(new ArrayBuffer(msghdr.size));
  readonly #tableAddress: number;

  constructor(readonly table: IovecTable) {
    this.#tableAddress = ptr(table.words);
  }

  /** Makes the message consist of the entries from `first` on. */
  protected point(first: number): void {
    const address = this.#tableAddress + first * iovec.size;
    this.words[msghdr.msg_iov / 4] = address % WORD;
    this.words[msghdr.msg_iov / 4 + 1] = address / WORD;
    this.words[msghdr.msg_iovlen / 4] = this.table.count - first;
  }
}

/** Receives into the entries of an iovec table, in order. */
export class ReceiveMessage extends Message {
  /** recvmsg(2). Returns the bytes received, 0 when the peer has closed. */
  receive(fd: number, flags = 0): number {
    this.point(0);
    return negativeErrno(libc.recvmsg(fd, this.words, flags));
  }
}

/** Sends the entries of an iovec table. */
export class SendMessage extends Message {
  /** sendmsg(2) of the entries from `first` on, never with a SIGPIPE. Returns the bytes sent, perhaps not all. */
  send(fd: number, first: number, flags = 0): number {
    this.point(first);
    return negativeErrno(libc.sendmsg(fd, this.words, flags | MSG_NOSIGNAL));
  }
}

/**
 * Makes the socket non-blocking, and the kernel signal this process whenever it has news: a connection, input, room for
 * output, the end. One signal may stand for several pieces of news, so a handler must take everything there is.
 */
export function signalNews(fd: number, signal: number): number {
  const owner = negativeErrno(libc.fcntl(fd, F_SETOWN, process.pid));
  if (owner < 0) return owner;
  const chosen = negativeErrno(libc.fcntl(fd, F_SETSIG, signal));
  return chosen < 0 ? chosen : negativeErrno(libc.fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
}

/** shutdown(2) of both directions: the peer reads the end of the stream, and so do our readers. */
export function shutdown(fd: number): number {
  return negativeErrno(libc.shutdown(fd, SHUT_RDWR));
}

/** shutdown(2) of our direction: the peer reads the end of the stream after all that was sent. */
export function shutdownSending(fd: number): number {
  return negativeErrno(libc.shutdown(fd, SHUT_WR));
}

/**
 * `struct sockaddr_un` of unix(7): the family in native order, then the name.
 * @param path a file, or with a leading `@` a name in the abstract namespace.
 */
export function unixAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : path);
  const address = new Uint8Array(new ArrayBuffer(2 + name.byteLength));
  address[0] = AF_UNIX;
  address.set(name, 2);
  return address;
}

function connectTo(path: string, type: number): number {
  const fd = negativeErrno(libc.socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  const address = unixAddress(path);
  const result = negativeErrno(libc.connect(fd, address, address.byteLength));
  if (result === 0) return fd;
  libc.close(fd);
  return result;
}

/** Connects a Unix stream socket without waiting. Returns its file descriptor, or -EAGAIN if too many clients wait. */
export function tryUnix(path: string): number {
  return connectTo(path, SOCK_STREAM | SOCK_NONBLOCK);
}

/** A Unix datagram socket connected to `path`. Returns its file descriptor. */
export function connectDatagram(path: string): number {
  return connectTo(path, SOCK_DGRAM);
}

/** Sends one datagram to the Unix socket at `path`, at once or -EAGAIN. Returns the bytes sent. */
export function sendDatagram(path: string, bytes: Uint8Array): number {
  const fd = negativeErrno(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  const address = unixAddress(path);
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  const result = negativeErrno(libc.sendto(fd, bytes, bytes.byteLength, flags, address, address.byteLength));
  libc.close(fd);
  return result;
}
