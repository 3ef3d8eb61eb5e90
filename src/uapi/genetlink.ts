/** include/uapi/linux/genetlink.h: families of messages that are known by name. */
export const GENL_ID_CTRL = 16;

/** `struct genlmsghdr`: byte offsets and size. */
export const genlmsghdr = { cmd: 0, version: 1, reserved: 2, size: 4 } as const;

export const CTRL_CMD_GETFAMILY = 3;
export const CTRL_ATTR_FAMILY_ID = 1;
export const CTRL_ATTR_FAMILY_NAME = 2;
