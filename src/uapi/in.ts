/** include/uapi/linux/in.h, in6.h and tcp.h, as <netinet/in.h> and <netinet/tcp.h> have them. */
export const IPPROTO_TCP = 6;
export const IPPROTO_IPV6 = 41;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_USER_TIMEOUT = 18;
export const IPV6_V6ONLY = 26;

/** `struct sockaddr_in`: byte offsets and size. Port and address are big-endian, the family is not. */
export const sockaddr_in = { sin_family: 0, sin_port: 2, sin_addr: 4, size: 16 } as const;

/** `struct sockaddr_in6`, likewise. */
export const sockaddr_in6 = {
  sin6_family: 0,
  sin6_port: 2,
  sin6_flowinfo: 4,
  sin6_addr: 8,
  sin6_scope_id: 24,
  size: 28,
} as const;
