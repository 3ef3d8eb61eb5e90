/** include/uapi/linux/wait.h: options of waitpid(2). */
export const WNOHANG = 1;
