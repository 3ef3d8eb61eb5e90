import { COMMAND_NAMES } from "../../trace/lines.ts";
import { command } from "../command.ts";
import { anyText, flag, option, positional } from "../options/argument.ts";
import { count } from "../options/values.ts";
import { trace } from "../trace/run.ts";
import { didYouMean, UsageError } from "../usage-error.ts";

const COUNT_MAX = 2 ** 40;
const SECONDS_MAX = 2_000_000;

export default command(
  {
    name: "trace",
    summary: "Show each request to a device in use",
    synopsis: "TARGET",
    details: [
      "Prints a line for each request that is answered from now on, until it is interrupted or the device is detached: seconds since the trace began, queue, command, sector and count (of 512 bytes), microseconds before the device got it and in the device, and the error. Nothing has to be switched on before. Only the user who serves the device, and root, may trace it.",
      "--json prints an object on each line: time (seconds), queue, command, offset and length (bytes), fua, queued and device (microseconds) and error (null, or its name).",
      '--write makes a file for "tsbuse replay". With --data it holds the bytes of writes as well, and "tsbuse crash" can use it.',
      'The device never waits for a trace: requests that are not read in time are counted, and reported as "N requests were not traced" or {"lost":N}.',
    ],
    examples: [
      { line: "tsbuse trace /dev/ublkb0", does: "what is asked of the disk" },
      {
        line: "tsbuse trace /dev/ublkb0 --seconds 60 --write disk.trace",
        does: 'a minute of it, for "tsbuse replay"',
      },
    ],
  },
  {
    target: positional("What the device was attached to, as the command printed it"),
    json: flag("Print an object on each line"),
    write: option({
      valueHint: "FILE",
      description: "Write the trace to FILE and print nothing",
      parse: anyText,
    }),
    data: flag("Keep the bytes of writes in FILE"),
    seconds: option({ valueHint: "N", description: "End after N seconds", parse: count(1, SECONDS_MAX) }),
    count: option({ valueHint: "N", description: "End after N requests", parse: count(1, COUNT_MAX) }),
    command: option({
      valueHint: "COMMANDS",
      description: `Only these, with commas between them: ${COMMAND_NAMES.join(", ")}`,
      words: COMMAND_NAMES,
      parse: commandNames,
    }),
  },
  ({ target, ...options }) => {
    const { write, data, json, command: only } = options;
    if (data && write === undefined)
      throw new UsageError("--data needs a file for the bytes: give --write FILE");
    if (json && write !== undefined)
      throw new UsageError("--json and --write exclude each other: leave out one");
    if (data && only !== undefined)
      throw new UsageError("--data is for all that was changed: leave out --command, or --data");
    return trace(target, options);
  },
);

/** @throws UsageError */
function commandNames(text: string, what: string): ReadonlySet<string> {
  const names = text.split(",");
  for (const name of names) {
    if (COMMAND_NAMES.includes(name)) continue;
    const remedy = didYouMean(name, COMMAND_NAMES, `give some of ${COMMAND_NAMES.join(", ")}`);
    throw new UsageError(`${what} knows no "${name}": ${remedy}`);
  }
  return new Set(names);
}
