/** include/uapi/asm-generic/errno-base.h and errno.h: the numbers this project returns or tells apart. */
export const errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ENOSYS: 38,
  ENODATA: 61,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EDQUOT: 122,
  ECANCELED: 125,
  ENOKEY: 126,
  EKEYREJECTED: 129,
} as const;

export type ErrnoCode = keyof typeof errno;

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(errno).map(([name, number]) => [number, name]),
);

/** `EIO` for 5; a number that has no name here is printed as a number. */
export function errnoName(number: number): string {
  return NAMES.get(number) ?? `errno ${number}`;
}
