/** include/linux/socket.h, include/uapi/asm-generic/socket.h, include/uapi/linux/uio.h. */
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;

export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_SNDBUF = 7;
export const SO_KEEPALIVE = 9;
export const SO_RCVTIMEO = 20;
export const SO_SNDBUFFORCE = 32;

export const SHUT_WR = 1;
export const SHUT_RDWR = 2;
export const MSG_PEEK = 0x02;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;

/** `struct iovec`: byte offsets and size on a 64-bit kernel. */
export const iovec = { iov_base: 0, iov_len: 8, size: 16 } as const;

/** `struct msghdr` as sendmsg(2) takes it, on a 64-bit libc: byte offsets and size. */
export const msghdr = {
  msg_name: 0,
  msg_namelen: 8,
  msg_iov: 16,
  msg_iovlen: 24,
  msg_control: 32,
  msg_controllen: 40,
  msg_flags: 48,
  size: 56,
} as const;

/** `UIO_MAXIOV`: the most iovecs one call takes. */
export const UIO_MAXIOV = 1024;
