/**
 * The parts of the NBD protocol that are not in <linux/nbd.h>, since the kernel's client has no use for them:
 * doc/proto.md of the NBD project, "Values". Everything on the wire is big-endian.
 */

/** "NBDMAGIC", "IHAVEOPT" and the magic number of a reply to an option. */
export const NBD_INIT_MAGIC = 0x4e42444d41474943n;
export const NBD_OPTS_MAGIC = 0x49484156454f5054n;
export const NBD_REP_MAGIC = 0x0003e889045565a9n;

/** Handshake flags, and the client's. */
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;
export const NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_C_NO_ZEROES = 1 << 1;

/** A transmission flag that <linux/nbd.h> leaves out. */
export const NBD_FLAG_SEND_DF = 1 << 7;

export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;

export const NBD_REP_FLAG_ERROR = 2 ** 31;
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;
export const NBD_REP_ERR_UNSUP = NBD_REP_FLAG_ERROR + 1;
export const NBD_REP_ERR_POLICY = NBD_REP_FLAG_ERROR + 2;
export const NBD_REP_ERR_INVALID = NBD_REP_FLAG_ERROR + 3;
export const NBD_REP_ERR_TLS_REQD = NBD_REP_FLAG_ERROR + 5;
export const NBD_REP_ERR_UNKNOWN = NBD_REP_FLAG_ERROR + 6;
export const NBD_REP_ERR_SHUTDOWN = NBD_REP_FLAG_ERROR + 7;
export const NBD_REP_ERR_TOO_BIG = NBD_REP_FLAG_ERROR + 9;

export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

export const NBD_CMD_CACHE = 5;
export const NBD_CMD_BLOCK_STATUS = 7;

/** Flags of one command, shifted as those of <linux/nbd.h> are. */
export const NBD_CMD_FLAG_DF = 1 << 18;
export const NBD_CMD_FLAG_REQ_ONE = 1 << 19;

export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_REPLY_FLAG_DONE = 1 << 0;
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
export const NBD_REPLY_TYPE_ERROR = 2 ** 15 + 1;

/** Status flags of the metadata context `base:allocation`. */
export const NBD_STATE_HOLE = 1 << 0;
export const NBD_STATE_ZERO = 1 << 1;

/** The longest string, in bytes: names and descriptions. */
export const NBD_MAX_STRING_SIZE = 4096;

/** Byte offsets and size of an option request, of a reply to it, and of a structured reply chunk's header. */
export const nbd_option = { magic: 0, option: 8, length: 12, size: 16 } as const;
export const nbd_option_reply = { magic: 0, option: 8, type: 12, length: 16, size: 20 } as const;
export const nbd_structured_reply = { magic: 0, flags: 4, type: 6, cookie: 8, length: 16, size: 20 } as const;
