/** include/uapi/asm-generic/signal.h and signal-defs.h. */
export const SIG_BLOCK = 0;
export const SIG_SETMASK = 2;

/** `sizeof(sigset_t)` in glibc and musl: 1,024 bits. */
export const SIGSET_BYTES = 128;

export const SIGHUP = 1;
export const SIGINT = 2;
export const SIGKILL = 9;
export const SIGALRM = 14;
export const SIGTERM = 15;
export const SIGURG = 23;
export const SA_RESTART = 0x10000000;

/** `struct sigaction` of glibc and musl, in bytes. */
export const sigaction = { sa_handler: 0, sa_mask: 8, sa_flags: 136, sa_restorer: 144, size: 152 } as const;
