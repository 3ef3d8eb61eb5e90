/** include/uapi/linux/sched.h. */
export const SCHED_OTHER = 0;
export const SCHED_RR = 2;
