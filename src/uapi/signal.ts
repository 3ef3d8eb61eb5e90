/** include/uapi/asm-generic/signal.h and signal-defs.h. */
export const SIG_BLOCK = 0;
export const SIG_SETMASK = 2;

/** `sizeof(sigset_t)` in glibc and musl: 1,024 bits. */
export const SIGSET_BYTES = 128;
