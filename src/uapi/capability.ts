/** include/uapi/linux/capability.h: bits of a capability set. */
export const CAP_SYS_ADMIN = 21;
export const CAP_SYS_RESOURCE = 24;
