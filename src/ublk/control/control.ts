/**
 * The control side of the ublk driver: commands on /dev/ublk-control, each an io_uring command with a structure of its
 * own. The kernel executes them on its own threads, so that the caller can serve requests meanwhile: it submits a
 * command, polls for its completion, and gives up on one that never completes.
 */
import { messageOf, UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { close, open } from "../../libc/file.ts";
import { Memory } from "../../libc/memory.ts";
import { SUBJECT_FD, submitApart } from "./ring-process.ts";
import { readNumber } from "../../libc/sysfs.ts";
import { Ring } from "../../libc/uring.ts";
import { errno } from "../../uapi/errno.ts";
import { O_RDWR } from "../../uapi/fcntl.ts";
import { IORING_OP_URING_CMD, IORING_SETUP_SQE128, io_uring_sqe } from "../../uapi/io_uring.ts";
import { ublksrv_ctrl_cmd } from "../../uapi/ublk_cmd.ts";

export const CONTROL_PATH = "/dev/ublk-control";

/** The arguments of a command. */
export interface ControlCommand {
  /** Number of the device; undefined to let the driver choose it, or for commands without one. */
  readonly device?: number;
  /** The bytes to send, or room for the answer, which is in it afterwards. At most 256 bytes. */
  readonly buffer?: Uint8Array;
  /** `data[0]`. */
  readonly data?: number;
  /** Milliseconds until we give up on the command. */
  readonly limitMs?: number;
}

/** Commands at once, including abandoned ones. */
const SLOTS = 8;
const BUFFER_BYTES = 256;
const NOT_A_DEVICE = 0xffffffff;
const NOT_A_QUEUE = 0xffff;
const LIMIT_MS = 10_000;
/** The first polls follow closely, because most commands take no time. */
const POLL_MS = 1;

/** What takes commands. */
export interface Commands {
  /**
   * Executes a command. Returns its result, or -errno: -ETIMEDOUT if the driver did not answer in time, although it may
   * still execute the command; -ECANCELED if this was closed meanwhile, or too many commands are abandoned.
   */
  command(operation: number, about: ControlCommand): Promise<number>;
  /**
   * As {@link command}, for a command that waits for requests which this process answers. A separate process submits
   * it, otherwise this one could not be killed during the wait (see ring-process.ts). Such a command has no buffer.
   */
  commandApart(operation: number, about: Omit<ControlCommand, "buffer">): Promise<number>;
}

export class Control implements Commands {
  readonly #fd: number;
  readonly #ring: Ring;
  /** Room for each slot's buffer, at an address that the kernel may use however long a command takes. */
  readonly #memory = new Memory(SLOTS * BUFFER_BYTES);
  readonly #buffers: Uint8Array;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  readonly #results: (number | undefined)[] = [];
  /** Slots of abandoned commands: they become free if the driver answers after all. */
  readonly #givenUp = new Set<number>();
  readonly #log: ((line: string) => void) | undefined;
  #isTold = false;
  #closed = false;

  /**
   * @param log gets a line if no separate process can submit a command that may have to wait for this one.
   * @throws UserError if the driver or io_uring is unavailable.
   */
  constructor(log?: (line: string) => void) {
    this.#log = log;
    this.#fd = openControl();
    try {
      this.#ring = makeRing(SLOTS, IORING_SETUP_SQE128);
    } catch (error) {
      close(this.#fd);
      throw error;
    }
    this.#buffers = this.#memory.bytes();
  }

  async command(operation: number, about: ControlCommand): Promise<number> {
    if (!this.#closed) this.#collect();
    const slot = this.#closed ? undefined : this.#free.pop();
    if (slot === undefined) return -errno.ECANCELED;
    this.#fill(slot, operation, about);
    this.#results[slot] = undefined;
    this.#ring.push(slot);
    const deadline = performance.now() + (about.limitMs ?? LIMIT_MS);
    for (;;) {
      const entered = this.#ring.enter(0);
      this.#collect();
      const result = this.#results[slot];
      if (result !== undefined) {
        this.#takeAnswer(slot, about.buffer);
        return result;
      }
      const isBroken = entered < 0 && entered !== -errno.EINTR && entered !== -errno.EAGAIN;
      if (isBroken || performance.now() > deadline) {
        this.#givenUp.add(slot);
        return isBroken ? entered : -errno.ETIMEDOUT;
      }
      await Bun.sleep(POLL_MS);
      // The ring is gone.
      if (this.#closed) return -errno.ECANCELED;
    }
  }

  async commandApart(operation: number, about: Omit<ControlCommand, "buffer">): Promise<number> {
    if (this.#closed) return -errno.ECANCELED;
    try {
      const result = await this.#tryApart(operation, about);
      if (result !== undefined) return result;
    } catch (error) {
      if (!this.#isTold)
        this.#log?.(
          `this process gives the ublk driver all its commands itself, and could hang if it is killed meanwhile (${messageOf(error)}): see sysctl vm.memfd_noexec`,
        );
      this.#isTold = true;
    }
    return this.command(operation, about);
  }

  /** Undefined if the submitting process was killed, perhaps before it submitted. @throws Error if none can start. */
  async #tryApart(operation: number, about: Omit<ControlCommand, "buffer">): Promise<number | undefined> {
    const ring = new Ring(1, IORING_SETUP_SQE128);
    try {
      fillEntry(new DataView(ring.words.buffer), SUBJECT_FD, operation, about);
      ring.push(0);
      const child = submitApart(ring, this.#fd);
      const deadline = performance.now() + (about.limitMs ?? LIMIT_MS);
      while (ring.ready === 0) {
        if (child.exitCode !== null || child.signalCode !== null) break;
        if (performance.now() > deadline) return -errno.ETIMEDOUT;
        await Bun.sleep(POLL_MS);
        if (this.#closed) return -errno.ECANCELED;
      }
      return ring.ready > 0 ? ring.result(0) : undefined;
    } finally {
      ring.close();
    }
  }

  /** Stops waiting for unfinished commands. */
  close(): void {
    this.#closed = true;
    this.#ring.close();
    close(this.#fd);
    // The kernel may still write to the buffer of an abandoned command.
    if (this.#free.length === SLOTS) this.#memory.close();
  }

  #fill(slot: number, operation: number, about: ControlCommand): void {
    const entryBytes = this.#ring.entryWords * 4;
    const entry = new DataView(this.#ring.words.buffer, slot * entryBytes, entryBytes);
    fillEntry(entry, this.#fd, operation, about);
    entry.setUint32(io_uring_sqe.user_data, slot, true);
    if (about.buffer === undefined) return;
    this.#buffers.set(about.buffer, slot * BUFFER_BYTES);
    const address = this.#memory.address + slot * BUFFER_BYTES;
    entry.setUint16(io_uring_sqe.cmd + ublksrv_ctrl_cmd.len, about.buffer.length, true);
    entry.setBigUint64(io_uring_sqe.cmd + ublksrv_ctrl_cmd.addr, BigInt(address), true);
  }

  #collect(): void {
    const count = this.#ring.ready;
    for (let index = 0; index < count; index += 1) {
      const slot = this.#ring.userData(index);
      this.#results[slot] = this.#ring.result(index);
      if (this.#givenUp.delete(slot)) this.#free.push(slot);
    }
    this.#ring.consume(count);
  }

  #takeAnswer(slot: number, buffer: Uint8Array | undefined): void {
    const at = slot * BUFFER_BYTES;
    buffer?.set(this.#buffers.subarray(at, at + buffer.length));
    this.#free.push(slot);
  }
}

/** Fills a submission entry for a command without a buffer. `fd` is {@link CONTROL_PATH} in the submitting process. */
function fillEntry(entry: DataView, fd: number, operation: number, { device, data }: ControlCommand): void {
  for (let byte = 0; byte < entry.byteLength; byte += 4) entry.setUint32(byte, 0);
  entry.setUint8(io_uring_sqe.opcode, IORING_OP_URING_CMD);
  entry.setInt32(io_uring_sqe.fd, fd, true);
  entry.setUint32(io_uring_sqe.cmd_op, operation, true);
  entry.setUint32(io_uring_sqe.cmd + ublksrv_ctrl_cmd.dev_id, device ?? NOT_A_DEVICE, true);
  entry.setUint16(io_uring_sqe.cmd + ublksrv_ctrl_cmd.queue_id, NOT_A_QUEUE, true);
  entry.setBigUint64(io_uring_sqe.cmd + ublksrv_ctrl_cmd.data, BigInt(data ?? 0), true);
}

function openControl(): number {
  const fd = open(CONTROL_PATH, O_RDWR);
  if (fd >= 0) return fd;
  if (fd === -errno.EACCES || fd === -errno.EPERM)
    throw new UserError(`${CONTROL_PATH} cannot be opened: run it as root, outside of a container`);
  throw new UserError(`${CONTROL_PATH} cannot be opened (${errorText(-fd)}): see "tsbuse doctor"`);
}

/** Why io_uring is unavailable to this process, with the remedy; undefined if it is available. */
export function findRingObstacle(): string | undefined {
  try {
    new Ring(1, IORING_SETUP_SQE128).close();
    return undefined;
  } catch (error) {
    return whyNoRing(error);
  }
}

/** Makes a ring. @throws UserError with the reason why this system refuses it. */
export function makeRing(entries: number, flags: number): Ring {
  try {
    return new Ring(entries, flags);
  } catch (error) {
    throw new UserError(whyNoRing(error), { cause: error });
  }
}

function whyNoRing(error: unknown): string {
  const number = error instanceof Error && "errno" in error ? error.errno : undefined;
  // Exists since Linux 6.6, if the kernel has io_uring.
  const disabled = readNumber("/proc/sys/kernel/io_uring_disabled");
  if (number === errno.EPERM && disabled !== 0)
    return 'io_uring is switched off here: run "sysctl kernel.io_uring_disabled=0", or use an NBD node';
  if (number === errno.EPERM || (number === errno.ENOSYS && disabled !== undefined))
    return "io_uring is forbidden to this process by a seccomp filter: run it outside of the container or service, or use an NBD node";
  if (number === errno.ENOSYS) return "this kernel has no io_uring: use an NBD node, /dev/nbd0";
  if (number === errno.EINVAL)
    return "io_uring of this kernel is too old: use Linux 6.1 or newer, or an NBD node";
  if (number === errno.ENOMEM)
    return 'no memory for io_uring: see "ulimit -l", or use fewer queues and a smaller --queue-depth';
  return `io_uring cannot be used (${error instanceof Error ? error.message : String(error)}): use an NBD node`;
}
