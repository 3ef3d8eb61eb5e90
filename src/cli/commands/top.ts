import { command } from "../command.ts";
import { flag, option, optional } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";
import { count } from "../options/values.ts";
import { top } from "../top/top.ts";

/** In seconds. */
const INTERVAL_MIN = 0.1;
const INTERVAL_MAX = 3600;

export default command(
  {
    name: "top",
    summary: "Watch the devices in use",
    synopsis: "[TARGET]",
    details: [
      "Shows all devices that tsbuse serves on this machine, or TARGET, each second: requests and bytes per second, the depth (requests in flight, averaged over the interval and now), errors by errno, the oldest request in flight, and for each command how long requests waited (q) and how long the device had them (d): the median, the 99th percentile and the maximum, accurate to an eighth. A request waits from when it was read: for its data, for requests before it, for others that touch the same bytes, for memory. Writes with FUA and flushes are counted apart. The bars show the IOPS of the last ticks, and where the disk was read and written, from its beginning to its end.",
      "Nothing has to be switched on. Layers are timed while somebody watches: the average time of a request in each layer, without the layers below it. Only the user who runs a device, and root, may watch it. A process that is stopped, or of another version, is shown as such.",
      "On a terminal q ends it; elsewhere it prints one frame after another. --json prints an object on a line for each tick: time, seconds (since the last tick), and devices, an array of path, driver (nbd, ublk or server), pid, uid, version, words (of the command line), size, readOnly, mounts, holders, queues, inFlight, state (serving, new, silent or other), silentSeconds, reason, errorsTotal (since the start), oldest (kind, offset, length, seconds) and rates (null unless serving). rates has seconds (between two answers of the process), iops, readBytesPerSecond, writtenBytesPerSecond, depth, errors, layers (name, requests, microseconds of one), heat (read and write: bytes in each of 64 parts of the disk) and kinds: for read, write, fua, flush, trim, zero and other, as far as there were any, requests, errors, iops, bytesPerSecond, and queue and device with p50, p99 and max in microseconds.",
    ],
    examples: [
      { line: "tsbuse top", does: "all devices, live" },
      {
        line: "tsbuse top /dev/ublkb0 --json --count 60 | jq .devices[0].rates.iops",
        does: "a minute, for a program",
      },
    ],
  },
  {
    target: optional("What the device was attached to, as the command printed it (default: all)"),
    json: flag("Print an object of JSON for each tick"),
    interval: option({
      valueHint: "SECONDS",
      description: "Time between ticks (default 1)",
      parse: seconds,
    }),
    count: option({
      valueHint: "N",
      description: "End after N ticks (default: never)",
      parse: count(1, 2 ** 31),
    }),
  },
  ({ target, json, interval = 1, count: ticks }) =>
    top({ target, json, intervalMs: interval * 1000, count: ticks }),
);

function seconds(text: string, what: string): number {
  const number = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (number >= INTERVAL_MIN && number <= INTERVAL_MAX) return number;
  throw new UsageError(`${what} "${text}" is invalid: give seconds from ${INTERVAL_MIN} to ${INTERVAL_MAX}`);
}
