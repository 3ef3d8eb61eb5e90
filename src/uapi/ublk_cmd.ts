/**
 * include/uapi/linux/ublk_cmd.h: the commands of the ublk driver, which are io_uring commands on /dev/ublk-control and
 * /dev/ublkcN, and the structures they carry. Everything is in the machine's byte order. The header of Linux 6.1 has
 * the plain numbers only (UBLK_CMD_*, UBLK_IO_*); the driver takes the encoded ones (UBLK_U_*) since Linux 6.4.
 */
import { _IOR, _IOWR } from "./ioctl.ts";

/** `struct ublksrv_ctrl_cmd`: byte offsets and size. */
export const ublksrv_ctrl_cmd = { dev_id: 0, queue_id: 4, len: 6, addr: 8, data: 16, size: 32 } as const;

/** `struct ublksrv_io_cmd`. */
export const ublksrv_io_cmd = { q_id: 0, tag: 2, result: 4, addr: 8, size: 16 } as const;

/** `struct ublksrv_io_desc`: what a request asks for. The operation is in the low byte of `op_flags`. */
export const ublksrv_io_desc = { op_flags: 0, nr_sectors: 4, start_sector: 8, addr: 16, size: 24 } as const;

/** `struct ublksrv_ctrl_dev_info`. */
export const ublksrv_ctrl_dev_info = {
  nr_hw_queues: 0,
  queue_depth: 2,
  state: 4,
  max_io_buf_bytes: 8,
  dev_id: 12,
  ublksrv_pid: 16,
  flags: 24,
  ublksrv_flags: 32,
  size: 64,
} as const;

/** `struct ublk_param_basic`. */
export const ublk_param_basic = {
  attrs: 0,
  logical_bs_shift: 4,
  physical_bs_shift: 5,
  io_opt_shift: 6,
  io_min_shift: 7,
  max_sectors: 8,
  chunk_sectors: 12,
  dev_sectors: 16,
  virt_boundary_mask: 24,
  size: 32,
} as const;

/** `struct ublk_param_discard`. */
export const ublk_param_discard = {
  discard_alignment: 0,
  discard_granularity: 4,
  max_discard_sectors: 8,
  max_write_zeroes_sectors: 12,
  max_discard_segments: 16,
  size: 20,
} as const;

/** `struct ublk_params`, as far as it is the same in every version: `len` says how much of it is there. */
export const ublk_params = { len: 0, types: 4, basic: 8, discard: 40 } as const;

export const UBLK_PARAM_TYPE_BASIC = 1 << 0;
export const UBLK_PARAM_TYPE_DISCARD = 1 << 1;

export const UBLK_ATTR_READ_ONLY = 1 << 0;
export const UBLK_ATTR_ROTATIONAL = 1 << 1;
export const UBLK_ATTR_VOLATILE_CACHE = 1 << 2;
export const UBLK_ATTR_FUA = 1 << 3;

const control = (nr: number): number => _IOWR(0x75, nr, ublksrv_ctrl_cmd.size);
const controlQuery = (nr: number): number => _IOR(0x75, nr, ublksrv_ctrl_cmd.size);

export const UBLK_U_CMD_GET_DEV_INFO = controlQuery(0x02);
export const UBLK_U_CMD_ADD_DEV = control(0x04);
export const UBLK_U_CMD_DEL_DEV = control(0x05);
export const UBLK_U_CMD_START_DEV = control(0x06);
export const UBLK_U_CMD_STOP_DEV = control(0x07);
export const UBLK_U_CMD_SET_PARAMS = control(0x08);
export const UBLK_U_CMD_GET_PARAMS = controlQuery(0x09);
export const UBLK_U_CMD_START_USER_RECOVERY = control(0x10);
export const UBLK_U_CMD_END_USER_RECOVERY = control(0x11);
/** Since Linux 6.5. */
export const UBLK_U_CMD_GET_FEATURES = controlQuery(0x13);
/** Since Linux 6.9. */
export const UBLK_U_CMD_DEL_DEV_ASYNC = controlQuery(0x14);

/** Since Linux 6.16. `data[0]` is the size in sectors. */
export const UBLK_U_CMD_UPDATE_SIZE = control(0x15);

/** Bytes of the answer to UBLK_U_CMD_GET_FEATURES: a set of UBLK_F_ flags. */
export const UBLK_FEATURES_LEN = 8;

export const UBLK_U_IO_FETCH_REQ = _IOWR(0x75, 0x20, ublksrv_io_cmd.size);
export const UBLK_U_IO_COMMIT_AND_FETCH_REQ = _IOWR(0x75, 0x21, ublksrv_io_cmd.size);
export const UBLK_U_IO_NEED_GET_DATA = _IOWR(0x75, 0x22, ublksrv_io_cmd.size);

export const UBLK_IO_RES_OK = 0;
export const UBLK_IO_RES_NEED_GET_DATA = 1;

/** Where the descriptors and the data of requests begin in /dev/ublkcN, for mmap(2) and for pread(2) and pwrite(2). */
export const UBLKSRV_CMD_BUF_OFFSET = 0;
export const UBLK_IO_BUF_BITS = 25;
export const UBLK_TAG_BITS = 16;
/** The most requests in a queue, and the most queues. */
export const UBLK_MAX_QUEUE_DEPTH = 4096;
export const UBLK_MAX_NR_QUEUES = 4096;

export const UBLK_F_NEED_GET_DATA = 1 << 2;
export const UBLK_F_USER_RECOVERY = 1 << 3;
export const UBLK_F_USER_RECOVERY_REISSUE = 1 << 4;
export const UBLK_F_CMD_IOCTL_ENCODE = 1 << 6;
export const UBLK_F_USER_COPY = 1 << 7;
/** Both since Linux 6.16. */
export const UBLK_F_UPDATE_SIZE = 1 << 10;
export const UBLK_F_QUIESCE = 1 << 12;

export const UBLK_S_DEV_DEAD = 0;
export const UBLK_S_DEV_LIVE = 1;
export const UBLK_S_DEV_QUIESCED = 2;
export const UBLK_S_DEV_FAIL_IO = 3;

export const UBLK_IO_OP_READ = 0;
export const UBLK_IO_OP_WRITE = 1;
export const UBLK_IO_OP_FLUSH = 2;
export const UBLK_IO_OP_DISCARD = 3;
export const UBLK_IO_OP_WRITE_ZEROES = 5;
export const UBLK_IO_OP_ZONE_OPEN = 10;

export const UBLK_IO_F_FUA = 1 << 13;
export const UBLK_IO_F_NOUNMAP = 1 << 15;
