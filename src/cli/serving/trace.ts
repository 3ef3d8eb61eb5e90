/** `--verbose`: a line for each request, as the client sent it. */
import { errorText } from "../../libc/errno.ts";
import { commandName } from "../../nbd/wire/request-header.ts";
import { NBD_CMD_DISC, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLUSH } from "../../uapi/nbd.ts";
import { log } from "../log.ts";

/** Commands without a range. */
const WITHOUT_RANGE: ReadonlySet<number> = new Set([NBD_CMD_DISC, NBD_CMD_FLUSH]);

/** `write offset 4096 length 8192 fua`, and the error, if any. */
export function traceLine(
  command: number,
  flags: number,
  offset: number,
  length: number,
  error: number,
): void {
  const words = [commandName(command)];
  if (!WITHOUT_RANGE.has(command)) words.push(`offset ${offset} length ${length}`);
  if ((flags & NBD_CMD_FLAG_FUA) !== 0) words.push("fua");
  if ((flags & NBD_CMD_FLAG_NO_HOLE) !== 0) words.push("no-hole");
  if (error !== 0) words.push(`failed: ${errorText(error)}`);
  log.info(words.join(" "));
}
