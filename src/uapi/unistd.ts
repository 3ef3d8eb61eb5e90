/**
 * asm/unistd.h: system calls that glibc did not always wrap (mknod was `__xmknod` before 2.33), for syscall(2).
 * x86-64 has numbers of its own, arm64 uses include/uapi/asm-generic/unistd.h.
 */
export const SYS_mknodat = process.arch === "arm64" ? 33 : 259;

export const AT_FDCWD = -100;
export const S_IFBLK = 0o060000;
