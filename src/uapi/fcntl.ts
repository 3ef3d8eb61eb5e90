/**
 * include/uapi/asm-generic/fcntl.h: flags of open(2). Arm numbers O_DIRECT and O_NOFOLLOW otherwise
 * (arch/arm64/include/uapi/asm/fcntl.h).
 */
export const O_RDONLY = 0o0;
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_NOCTTY = 0o400;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_ASYNC = 0o20000;
export const O_DIRECT = process.arch === "arm64" ? 0o200000 : 0o40000;
export const O_NOFOLLOW = process.arch === "arm64" ? 0o100000 : 0o400000;
export const O_CLOEXEC = 0o2000000;

/** include/uapi/asm-generic/fcntl.h: operations of flock(2). */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;

/** fcntl(2): sets the flags of a descriptor. */
export const F_SETFD = 2;
/** Sets its status, O_ASYNC and O_NONBLOCK among them; whom signals of O_ASYNC go to; which signal that is. */
export const F_SETFL = 4;
export const F_SETOWN = 8;
export const F_SETSIG = 10;
