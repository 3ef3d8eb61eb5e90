/** Traces a queue's requests as every transport does: in NBD's terms. */
import type { Dispatch } from "../../dispatch.ts";
import { TraceWriter } from "../../queues/trace-ring.ts";
import type { Trace } from "../../transport.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../uapi/nbd.ts";
import {
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
  UBLK_IO_OP_WRITE_ZEROES,
} from "../../uapi/ublk_cmd.ts";
import type { QueueRequest } from "./request.ts";
import type { TagBuffers } from "./tag-buffers.ts";

const MICROSECONDS = 1000;

const COMMANDS: ReadonlyMap<number, number> = new Map([
  [UBLK_IO_OP_READ, NBD_CMD_READ],
  [UBLK_IO_OP_WRITE, NBD_CMD_WRITE],
  [UBLK_IO_OP_FLUSH, NBD_CMD_FLUSH],
  [UBLK_IO_OP_DISCARD, NBD_CMD_TRIM],
  [UBLK_IO_OP_WRITE_ZEROES, NBD_CMD_WRITE_ZEROES],
]);

/** Operations without a counterpart keep their own number, which is above all of NBD's. */
export function traceTo(trace: Trace): (request: QueueRequest, error: number) => void {
  return (request, error) => {
    const { offset, length, arrived, begun, settled } = request;
    const queued = (begun - arrived) * MICROSECONDS;
    const served = (settled - begun) * MICROSECONDS;
    trace(commandOf(request), flagsOf(request), offset, length, error, queued, served, settled);
  };
}

/** Keeps them in a queue's ring, for its readers. */
export class RingTrace {
  readonly #writer: TraceWriter;
  readonly #memoryAddress: number;
  readonly #buffers: TagBuffers;

  /** @param memory of the ring. @param buffers hold the bytes of writes, unless the device is memory. */
  constructor(memory: SharedArrayBuffer, dispatch: Dispatch, buffers: TagBuffers) {
    this.#writer = new TraceWriter(memory);
    this.#memoryAddress = dispatch.memoryAddress;
    this.#buffers = buffers;
  }

  /** The request still has its buffer. @param error an errno, 0 for success. */
  put(request: QueueRequest, error: number): void {
    const writer = this.#writer;
    if (!writer.isRead) return;
    const { offset, length, operation } = request;
    const hasData = writer.wantsData && operation === UBLK_IO_OP_WRITE && error === 0;
    const source = hasData ? this.#addressOf(request) : 0;
    writer.put(commandOf(request), flagsOf(request), offset, length, error, request, source);
  }

  #addressOf({ buffer, offset }: QueueRequest): number {
    return this.#memoryAddress < 0 ? this.#buffers.address(buffer) : this.#memoryAddress + offset;
  }
}

function commandOf({ operation }: QueueRequest): number {
  return COMMANDS.get(operation) ?? operation;
}

function flagsOf({ operation, fua, noUnmap }: QueueRequest): number {
  const noHole = noUnmap && operation === UBLK_IO_OP_WRITE_ZEROES;
  return (fua ? NBD_CMD_FLAG_FUA : 0) | (noHole ? NBD_CMD_FLAG_NO_HOLE : 0);
}
