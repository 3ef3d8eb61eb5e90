/** The driver's descriptions of a queue's requests: a struct ublksrv_io_desc for each tag, in shared memory. */
import { PAGE } from "../../libc/pagemap.ts";
import { SharedMapping } from "../../libc/shared-mapping.ts";
import {
  UBLK_IO_F_FUA,
  UBLK_IO_F_NOUNMAP,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_MAX_QUEUE_DEPTH,
  UBLKSRV_CMD_BUF_OFFSET,
  ublksrv_io_desc,
} from "../../uapi/ublk_cmd.ts";
import type { QueueRequest } from "./request.ts";

const WORD = 2 ** 32;
const WORD_BYTES = 4;
const SECTOR_BYTES = 512;
/** Below it, a number of sectors fits in 32 bits even as bytes. */
const SECTORS_SMALL = 2 ** 31 / SECTOR_BYTES;
const OPERATION_MASK = 0xff;

const DESCRIPTOR_WORDS = ublksrv_io_desc.size / WORD_BYTES;
const OP_FLAGS = ublksrv_io_desc.op_flags / WORD_BYTES;
const NR_SECTORS = ublksrv_io_desc.nr_sectors / WORD_BYTES;
const START_SECTOR = ublksrv_io_desc.start_sector / WORD_BYTES;

/** The range of a queue's descriptors in /dev/ublkcN, as the driver computes it: each queue begins on a new page. */
export function descriptorRange(
  queue: number,
  depth: number,
  page = PAGE,
): { readonly offset: number; readonly length: number } {
  const wholePages = (bytes: number): number => Math.ceil(bytes / page) * page;
  return {
    offset: UBLKSRV_CMD_BUF_OFFSET + queue * wholePages(UBLK_MAX_QUEUE_DEPTH * ublksrv_io_desc.size),
    length: wholePages(depth * ublksrv_io_desc.size),
  };
}

export class Descriptors {
  readonly #range: ReturnType<typeof descriptorRange>;
  #mapping: SharedMapping | undefined;
  #words = new Uint32Array(0);

  constructor(queue: number, depth: number) {
    this.#range = descriptorRange(queue, depth);
  }

  /** Call it before the first {@link read}. @param fd /dev/ublkcN; remains the caller's. @throws ErrnoError */
  map(fd: number): void {
    this.#mapping = new SharedMapping(fd, this.#range.offset, this.#range.length);
    this.#words = new Uint32Array(this.#mapping.buffer);
  }

  /** Fills in the request of a tag from its descriptor. */
  read(request: QueueRequest): void {
    const words = this.#words;
    const at = request.tag * DESCRIPTOR_WORDS;
    const opFlags = words[at + OP_FLAGS] ?? 0;
    const low = words[at + START_SECTOR] ?? 0;
    const high = words[at + START_SECTOR + 1] ?? 0;
    request.operation = opFlags & OPERATION_MASK;
    request.fua = (opFlags & UBLK_IO_F_FUA) !== 0;
    request.noUnmap = (opFlags & UBLK_IO_F_NOUNMAP) !== 0;
    // 32-bit integers as long as they suffice: wider ones take several times as long.
    request.offset =
      high === 0 && low < SECTORS_SMALL ? low * SECTOR_BYTES : (high * WORD + low) * SECTOR_BYTES;
    request.length = (words[at + NR_SECTORS] ?? 0) * SECTOR_BYTES;
    request.changes = request.operation !== UBLK_IO_OP_READ && request.operation !== UBLK_IO_OP_FLUSH;
  }

  close(): void {
    this.#mapping?.close();
  }
}
