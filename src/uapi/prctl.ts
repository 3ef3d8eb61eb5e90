/** include/uapi/linux/prctl.h. */
export const PR_SET_IO_FLUSHER = 57;
