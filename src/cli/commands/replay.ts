import { command } from "../command.ts";
import { DEVICES } from "../device-maker.ts";
import { flag, option, optional, positional } from "../options/argument.ts";
import { LAYER } from "../options/layers.ts";
import { count } from "../options/values.ts";
import { replayRecord } from "../replay/run.ts";

const DEPTH_DEFAULT = 128;
const DEPTH_MAX = 4096;

export default command(
  {
    name: "replay",
    summary: "Repeat a trace, and compare the times",
    synopsis: "FILE TARGET [ARG]",
    rest: "KEY=VALUE",
    details: [
      'FILE is what "tsbuse trace --write FILE" or "--layer record:file=FILE" has made. TARGET is a block device, which is used with direct I/O, a file, one of ramdisk [SIZE], loop FILE and deadbeef [SIZE], or a module, which serve within this process. Each request begins at its original time, or with --fast as soon as there is room. Requests that touch the same bytes keep their order.',
      "A disk that is in use or too small is refused before the first request. Contents are overwritten only with --destroy; --reads leaves out everything but reads. Writes whose bytes are not in FILE fill each sector of 512 bytes with its number, 32 bits, little-endian.",
      "Prints for each command how many there were, how many failed, and the median, the 99th percentile and the maximum of the time that they took then and now. The time then was measured in the process that served the device; the time now is how long this process waits.",
    ],
    examples: [
      {
        line: "tsbuse replay disk.trace /dev/nvme1n1 --destroy",
        does: "would this disk be faster? its contents are lost",
      },
      { line: "tsbuse replay disk.trace ramdisk --fast", does: "as fast as it goes, in memory" },
      {
        line: "tsbuse replay disk.trace disk.img --layer cow",
        does: "all of it, and the file stays as it is",
      },
    ],
  },
  {
    file: positional("A trace or a record"),
    target: positional("A block device, a file, a module, or one of ramdisk, loop and deadbeef", {
      words: DEVICES,
    }),
    arg: optional("SIZE of ramdisk and deadbeef (default: that of the device then), FILE of loop"),
    fast: flag("Begin each request as soon as there is room for it, whenever it came"),
    depth: option({
      valueHint: "N",
      description: `Requests in flight at once (default ${DEPTH_DEFAULT})`,
      parse: count(1, DEPTH_MAX),
    }),
    reads: flag("Repeat reads alone"),
    destroy: flag("Overwrite the contents of TARGET"),
    stack: LAYER,
  },
  ({ depth = DEPTH_DEFAULT, arg: argument, ...args }, words) =>
    replayRecord({ ...args, argument, depth, words }),
);
