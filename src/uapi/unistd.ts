/**
 * asm/unistd.h: system calls that a C library does not wrap, or did not always, for syscall(2): mknod was `__xmknod`
 * before glibc 2.33, and preadv2 came with glibc 2.26 and musl 1.2.5. x86-64 has numbers of its own, arm64 uses
 * include/uapi/asm-generic/unistd.h; later ones are the same everywhere.
 */
const ARM64 = process.arch === "arm64";

export const SYS_mknodat = ARM64 ? 33 : 259;
export const SYS_sched_setscheduler = ARM64 ? 119 : 144;
export const SYS_init_module = ARM64 ? 105 : 175;
export const SYS_finit_module = ARM64 ? 273 : 313;
/** Their offset is one argument, and the next one, its upper half where a register has 32 bits, is 0. */
export const SYS_preadv2 = ARM64 ? 286 : 327;
export const SYS_pwritev2 = ARM64 ? 287 : 328;
export const SYS_memfd_create = ARM64 ? 279 : 319;
export const SYS_io_uring_setup = 425;
export const SYS_io_uring_enter = 426;
export const SYS_io_uring_register = 427;
/** Since Linux 5.1, 5.3 and 5.6. */
export const SYS_pidfd_send_signal = 424;
export const SYS_pidfd_open = 434;
export const SYS_pidfd_getfd = 438;

export const AT_FDCWD = -100;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
