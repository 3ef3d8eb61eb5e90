/** A queue's requests as every transport's trace has them: in the words of NBD. */
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

const MICROSECONDS = 1000;

const COMMANDS: ReadonlyMap<number, number> = new Map([
  [UBLK_IO_OP_READ, NBD_CMD_READ],
  [UBLK_IO_OP_WRITE, NBD_CMD_WRITE],
  [UBLK_IO_OP_FLUSH, NBD_CMD_FLUSH],
  [UBLK_IO_OP_DISCARD, NBD_CMD_TRIM],
  [UBLK_IO_OP_WRITE_ZEROES, NBD_CMD_WRITE_ZEROES],
]);

/** What has no counterpart is shown by its own number, which is above all of theirs. */
export function traceTo(trace: Trace): (request: QueueRequest, error: number) => void {
  return ({ operation, fua, noUnmap, offset, length, arrived, begun, settled }, error) => {
    const noHole = noUnmap && operation === UBLK_IO_OP_WRITE_ZEROES;
    const flags = (fua ? NBD_CMD_FLAG_FUA : 0) | (noHole ? NBD_CMD_FLAG_NO_HOLE : 0);
    const command = COMMANDS.get(operation) ?? operation;
    const queued = (begun - arrived) * MICROSECONDS;
    trace(command, flags, offset, length, error, queued, (settled - begun) * MICROSECONDS, settled);
  };
}
