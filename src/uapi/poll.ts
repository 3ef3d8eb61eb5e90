/** include/uapi/asm-generic/poll.h. */
export const POLLIN = 0x0001;
export const POLLOUT = 0x0004;

/** `struct pollfd`: byte offsets and size. */
export const pollfd = { fd: 0, events: 4, revents: 6, size: 8 } as const;
