/**
 * include/uapi/linux/io_uring.h: setting up a pair of rings, the entries that go into one and come out of the other.
 * Everything is in the machine's byte order.
 */

export const IORING_SETUP_CQSIZE = 1 << 3;
/** Completions do not interrupt the thread: it picks them up when it enters the kernel. Since Linux 5.19. */
export const IORING_SETUP_COOP_TASKRUN = 1 << 8;
/** Submission entries of 128 bytes, for commands with data of their own. Since Linux 5.19. */
export const IORING_SETUP_SQE128 = 1 << 10;
/** One thread submits, always the same. Since Linux 6.0. */
export const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
/** Completions are worked on in io_uring_enter(2) with IORING_ENTER_GETEVENTS alone. Since Linux 6.1. */
export const IORING_SETUP_DEFER_TASKRUN = 1 << 13;

export const IORING_ENTER_GETEVENTS = 1 << 0;

/** Both rings lie in one mapping. Since Linux 5.4. */
export const IORING_FEAT_SINGLE_MMAP = 1 << 0;

/** An offset of -1 is the file's own. Since Linux 5.6, as IORING_OP_READ and IORING_OP_WRITE are. */
export const IORING_FEAT_RW_CUR_POS = 1 << 3;

export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x10000000;

export const IORING_OP_FSYNC = 3;
export const IORING_OP_POLL_ADD = 6;
export const IORING_OP_POLL_REMOVE = 7;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
/** Since Linux 5.19. */
export const IORING_OP_URING_CMD = 46;

export const IORING_FSYNC_DATASYNC = 1 << 0;

export const IORING_REGISTER_EVENTFD = 4;

/** `struct io_uring_params`: byte offsets and size, those of `sq_off` and `cq_off` included. */
export const io_uring_params = {
  sq_entries: 0,
  cq_entries: 4,
  flags: 8,
  features: 20,
  sq_off: 40,
  cq_off: 80,
  size: 120,
} as const;

/** `struct io_sqring_offsets`: byte offsets of the members, each of 32 bits. */
export const io_sqring_offsets = { head: 0, tail: 4, ring_mask: 8, array: 24, size: 40 } as const;

/** `struct io_cqring_offsets`. */
export const io_cqring_offsets = { head: 0, tail: 4, ring_mask: 8, cqes: 20, size: 40 } as const;

/** `struct io_uring_sqe`: byte offsets and size; `cmd` and what follows it belong to the command. */
export const io_uring_sqe = {
  opcode: 0,
  flags: 1,
  ioprio: 2,
  fd: 4,
  off: 8,
  cmd_op: 8,
  addr: 16,
  len: 24,
  rw_flags: 28,
  fsync_flags: 28,
  poll32_events: 28,
  user_data: 32,
  cmd: 48,
  size: 64,
} as const;

/** Bytes of an entry under IORING_SETUP_SQE128. */
export const SQE128_BYTES = 128;

/** `struct io_uring_cqe`: byte offsets and size. */
export const io_uring_cqe = { user_data: 0, res: 8, flags: 12, size: 16 } as const;
