/** Names of commands for messages. */
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../uapi/nbd.ts";
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE } from "./numbers.ts";

const NAMES: ReadonlyMap<number, string> = new Map([
  [NBD_CMD_READ, "read"],
  [NBD_CMD_WRITE, "write"],
  [NBD_CMD_DISC, "disconnect"],
  [NBD_CMD_FLUSH, "flush"],
  [NBD_CMD_TRIM, "trim"],
  [NBD_CMD_CACHE, "cache"],
  [NBD_CMD_WRITE_ZEROES, "write zeroes"],
  [NBD_CMD_BLOCK_STATUS, "block status"],
]);

/** `write zeroes`, or `command 9` for what has no name. */
export function commandName(command: number): string {
  return NAMES.get(command) ?? `command ${command}`;
}
