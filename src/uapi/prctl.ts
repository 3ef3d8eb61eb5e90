/** include/uapi/linux/prctl.h. */
export const PR_SET_CHILD_SUBREAPER = 36;
export const PR_SET_IO_FLUSHER = 57;
export const PR_GET_IO_FLUSHER = 58;
