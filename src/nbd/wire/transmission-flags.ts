/** What a device offers, as the protocol says it. */
import type { Dispatch } from "../../dispatch.ts";
import {
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from "../../uapi/nbd.ts";

/** NBD_FLAG_*. Bits that an older kernel or client does not know are ignored by it. */
export function transmissionFlags(dispatch: Dispatch): number {
  const { write, flush, fua, trim, writeZeroes, rotational } = dispatch.capabilities;
  return (
    NBD_FLAG_HAS_FLAGS |
    (write ? 0 : NBD_FLAG_READ_ONLY) |
    (flush ? NBD_FLAG_SEND_FLUSH : 0) |
    (fua ? NBD_FLAG_SEND_FUA : 0) |
    (rotational ? NBD_FLAG_ROTATIONAL : 0) |
    (trim ? NBD_FLAG_SEND_TRIM : 0) |
    (writeZeroes ? NBD_FLAG_SEND_WRITE_ZEROES : 0)
  );
}
