/** A traced request as a line, for people or for programs. */
import { errnoName } from "../uapi/errno.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../uapi/nbd.ts";
import type { TracedRequest } from "./request.ts";

/** The names that layers use for the commands. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [NBD_CMD_READ, "read"],
  [NBD_CMD_WRITE, "write"],
  [NBD_CMD_FLUSH, "flush"],
  [NBD_CMD_TRIM, "trim"],
  [NBD_CMD_WRITE_ZEROES, "zero"],
]);

/** The commands that a trace can be limited to. */
export const COMMAND_NAMES: readonly string[] = [...NAMES.values()];

const SECTOR = 512;
const SECOND_MS = 1000;
const MICROSECONDS = 1000;

/** The name of a command; `command-7` for one that only some clients send. */
export function nameOf({ command }: TracedRequest): string {
  return NAMES.get(command) ?? `command-${command}`;
}

export const HEADING = `${"TIME".padStart(12)} Q ${"COMMAND".padEnd(12)} ${"SECTOR + COUNT".padEnd(20)} ${"QUEUE-US".padStart(10)} ${"DEVICE-US".padStart(10)} ERROR`;

/** `    0.000123 0 write,fua  2048 + 8   12.3   45.6 -`: columns that `awk` finds. */
export function textLine(request: TracedRequest): string {
  const { queue, flags, offset, length, error, settled } = request;
  const words = [nameOf(request)];
  if ((flags & NBD_CMD_FLAG_FUA) !== 0) words.push("fua");
  if ((flags & NBD_CMD_FLAG_NO_HOLE) !== 0) words.push("no-hole");
  const [queued, device] = times(request);
  return [
    (settled / SECOND_MS).toFixed(6).padStart(12),
    queue,
    words.join(",").padEnd(12),
    `${inSectors(offset)} + ${inSectors(length)}`.padEnd(20),
    queued.toFixed(1).padStart(10),
    device.toFixed(1).padStart(10),
    error === 0 ? "-" : errnoName(error),
  ].join(" ");
}

/** Sectors, or `1000B` if this is not a whole number of sectors, which the device refuses. */
function inSectors(bytes: number): string {
  return bytes % SECTOR === 0 ? String(bytes / SECTOR) : `${bytes}B`;
}

export function jsonLine(request: TracedRequest): string {
  const { queue, flags, offset, length, error, settled } = request;
  const [queued, device] = times(request);
  return JSON.stringify({
    time: Math.round(settled * MICROSECONDS) / (MICROSECONDS * SECOND_MS),
    queue,
    command: nameOf(request),
    offset,
    length,
    fua: (flags & NBD_CMD_FLAG_FUA) !== 0,
    queued: tenths(queued),
    device: tenths(device),
    error: error === 0 ? null : errnoName(error),
  });
}

/** Microseconds before the device got the request, and in the device. */
function times({ arrived, begun, settled }: TracedRequest): readonly [number, number] {
  return [(begun - arrived) * MICROSECONDS, (settled - begun) * MICROSECONDS];
}

function tenths(value: number): number {
  return Math.round(value * 10) / 10;
}
