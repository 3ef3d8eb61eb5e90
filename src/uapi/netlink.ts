/** include/uapi/linux/netlink.h: messages to the kernel and back, in native byte order. */
export const AF_NETLINK = 16;
export const NETLINK_GENERIC = 16;

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLMSG_ERROR = 2;
export const NLA_F_NESTED = 1 << 15;

/** `struct nlmsghdr`: byte offsets and size. */
export const nlmsghdr = {
  nlmsg_len: 0,
  nlmsg_type: 4,
  nlmsg_flags: 6,
  nlmsg_seq: 8,
  nlmsg_pid: 12,
  size: 16,
} as const;

/** `struct nlattr`: byte offsets and size. What follows is padded to {@link NLA_ALIGNTO}. */
export const nlattr = { nla_len: 0, nla_type: 2, size: 4 } as const;
export const NLA_ALIGNTO = 4;
