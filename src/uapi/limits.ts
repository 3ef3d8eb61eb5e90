/** include/uapi/linux/limits.h: bytes that a pipe takes whole, or not at all. */
export const PIPE_BUF = 4096;
